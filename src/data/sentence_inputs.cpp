#include "data/sentence_inputs.h"

#include <algorithm>

namespace qn {

int32_t SentenceInputs::length(int32_t first, int32_t second) const {
  int32_t total = first + (init_token >= 0 ? 1 : 0);
  if (second >= 0) total += second + (separator_token >= 0 ? 1 : 0);
  return shorten == Shorten::none ? total : static_cast<int32_t>(std::min<int64_t>(total, longest));
}

/// The shorter one of a pair keeps all of it, but no more than half.
std::pair<size_t, size_t> SentenceInputs::kept(size_t first, size_t second, bool pair) const {
  const auto room =
      static_cast<size_t>(std::max<int64_t>(longest - (init_token >= 0) - (pair && separator_token >= 0), 2));
  if (shorten != Shorten::keep_end) return {first, second};
  if (!pair) return {std::min(first, room), second};
  if (first + second <= room) return {first, second};
  const size_t shorter = std::min({first, second, room / 2});
  return first <= second ? std::pair(shorter, room - shorter) : std::pair(room - shorter, shorter);
}

std::vector<int32_t> SentenceInputs::compose(std::span<const int32_t> first, std::span<const int32_t> second,
                                             bool pair) const {
  std::vector<int32_t> tokens;
  const auto add = [&](std::span<const int32_t> sentence, size_t count) {
    tokens.insert(tokens.end(), sentence.begin(), sentence.begin() + static_cast<std::ptrdiff_t>(count));
    if (count < sentence.size()) tokens.back() = sentence.back();
  };
  const auto [of_first, of_second] = kept(first.size(), second.size(), pair);
  if (init_token >= 0) tokens.push_back(init_token);
  add(first, of_first);
  if (pair) {
    if (separator_token >= 0) tokens.push_back(separator_token);
    add(second, of_second);
  }
  if (shorten != Shorten::none && std::ssize(tokens) > longest) tokens.resize(static_cast<size_t>(longest));
  return tokens;
}

}  // namespace qn
