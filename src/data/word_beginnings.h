// Which words of a dictionary begin what stands between spaces: what masking of whole words needs to know.
#pragma once

#include <filesystem>
#include <vector>

#include "data/dictionary.h"

namespace qn {

/// One per entry of `dictionary`, by the tokenizer that the prepared data in `folder` keep; without one, every entry
/// is a word by itself. Special symbols and padding words always begin one, as in fairseq.
std::vector<bool> word_beginnings(const std::filesystem::path& folder, const Dictionary& dictionary);

}  // namespace qn
