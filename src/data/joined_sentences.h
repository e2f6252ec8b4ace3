// Sentences one behind another: what encoders compute on. There is no padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace qn {

struct JoinedSentences {
  std::vector<int32_t> tokens, begins, lengths;
  int32_t longest = 0;

  int64_t count() const { return std::ssize(begins); }
  void add(std::span<const int32_t> sentence) {
    begins.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(static_cast<int32_t>(sentence.size()));
    longest = std::max(longest, lengths.back());
    tokens.insert(tokens.end(), sentence.begin(), sentence.end());
  }
};

}  // namespace qn
