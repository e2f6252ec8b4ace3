// What all vocabularies of byte pairs have in common (GPT-2, Radford et al. 2019; fairseq semantics 6.7): text is cut
// into words by a regular expression, tokens are strings of bytes, and files spell a byte as a printable character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/word_pattern.h"

namespace qn {

/// Cuts a text into the words that no token goes beyond: contractions, then letters, digits or other signs, each with a
/// blank before them; of white space in a row the last one goes to what follows.
const WordPattern& byte_level_words();
/// Takes the whole text for one word.
const WordPattern& one_word();

/// The printable character of a byte, in UTF-8: itself where it is one, otherwise U+0100, U+0101, ... in order of
/// bytes.
std::string spelled_byte(uint8_t byte);
/// All bytes in the order of their characters, which is that of GPT-2's numbers.
const std::vector<uint8_t>& byte_level_order();
/// The bytes that a token stands for; what is not spelled in those characters stands for itself.
std::string bytes_of_token(std::string_view token);

}  // namespace qn
