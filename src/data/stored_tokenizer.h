// A tokenizer as texts: parts of what data/vocabulary.h stores.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/vocabulary.h"

namespace qn {

/// Adds the tokenizer to `parts`. Byte pairs are stored as the two tokens of every merge, in numbers, because the
/// vocabulary follows from them; where it does not, as the texts of their files, and so are word pieces.
void store_tokenizer(const Tokenizer& tokenizer, VocabularyParts& parts);
/// Null where there is none.
std::unique_ptr<Tokenizer> stored_tokenizer(const VocabularyParts& parts, const std::string& where);

/// Numbers of 24 bits as bytes: the lowest byte of every number, then the middle and then the highest ones. Neighbours
/// are more alike this way, which is what a compressor needs.
inline constexpr int32_t kMostNumber = (1 << 24) - 1;
std::string number_planes(std::span<const int32_t> numbers);
/// Throws qn::Error beginning with `where` when the bytes are no such numbers.
std::vector<int32_t> numbers_of_planes(std::string_view planes, const std::string& where);

}  // namespace qn
