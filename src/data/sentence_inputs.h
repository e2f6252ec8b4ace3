// One or two sentences as the input of an encoder that classifies them (reference 6.6).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/enum_names.h"
#include "core/special_tokens.h"

namespace qn {

/// What happens to inputs that are too long: nothing; what is behind the limit is left out (fairseq); or sentences lose
/// what is before their </s>, of a pair the longer one first (transformers' longest_first).
enum class Shorten { none, truncate, keep_end };
template <>
struct EnumNames<Shorten> {
  static constexpr EnumName<Shorten> kAll[] = {
      {Shorten::none, "none"}, {Shorten::truncate, "truncate"}, {Shorten::keep_end, "keep_end"}};
};

struct SentenceInputs {
  int32_t init_token = kBosId;       ///< in front of the first sentence; -1: none
  int32_t separator_token = kEosId;  ///< between </s> of the first and the second sentence; -1: none
  Shorten shorten = Shorten::none;
  int64_t longest = 0;  ///< where inputs are shortened

  /// Tokens of the input of sentences of these lengths, their </s> included; `second` < 0: there is none.
  int32_t length(int32_t first, int32_t second) const;
  /// <s> first </s>, or <s> first </s> </s> second </s>; both sentences come with their </s>.
  std::vector<int32_t> compose(std::span<const int32_t> first, std::span<const int32_t> second, bool pair) const;
  /// Where the second sentence of a pair of these lengths begins in what compose() makes, if it is not cut off before.
  size_t second_begin(size_t first, size_t second) const {
    return kept(first, second, true).first + (init_token >= 0 ? 1 : 0) + (separator_token >= 0 ? 1 : 0);
  }

 private:
  /// Tokens of both sentences that keep_end leaves, their </s> included.
  std::pair<size_t, size_t> kept(size_t first, size_t second, bool pair) const;
};

}  // namespace qn
