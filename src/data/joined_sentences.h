// Sentences one behind another: what encoders compute on. There is no padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace qn {

struct JoinedSentences {
  std::vector<int32_t> tokens, begins, lengths;
  std::vector<int32_t> types;  ///< of each token: 0 in the first, 1 in the second sentence of a pair
  int32_t longest = 0;

  int64_t count() const { return std::ssize(begins); }
  /// `second`: where the second sentence of a pair begins; beyond its end for single ones.
  void add(std::span<const int32_t> sentence, size_t second = SIZE_MAX) {
    begins.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(static_cast<int32_t>(sentence.size()));
    longest = std::max(longest, lengths.back());
    tokens.insert(tokens.end(), sentence.begin(), sentence.end());
    for (size_t i = 0; i < sentence.size(); ++i) types.push_back(i < second ? 0 : 1);
  }
};

}  // namespace qn
