#include "data/sentence_inputs.h"

#include <algorithm>

namespace qn {

int32_t SentenceInputs::length(int32_t first, int32_t second) const {
  int32_t total = first + (init_token >= 0 ? 1 : 0);
  if (second >= 0) total += second + (separator_token >= 0 ? 1 : 0);
  return shorten == Shorten::truncate ? static_cast<int32_t>(std::min<int64_t>(total, longest)) : total;
}

std::vector<int32_t> SentenceInputs::compose(std::span<const int32_t> first, std::span<const int32_t> second,
                                             bool pair) const {
  std::vector<int32_t> tokens;
  if (init_token >= 0) tokens.push_back(init_token);
  tokens.insert(tokens.end(), first.begin(), first.end());
  if (pair) {
    if (separator_token >= 0) tokens.push_back(separator_token);
    tokens.insert(tokens.end(), second.begin(), second.end());
  }
  if (shorten == Shorten::truncate && std::ssize(tokens) > longest) tokens.resize(static_cast<size_t>(longest));
  return tokens;
}

}  // namespace qn
