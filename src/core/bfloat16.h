// bfloat16: the upper half of a float. Storage only; arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>

namespace qn {

struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  /// Rounds to nearest even; values beyond the largest become infinity, NaN stays a (quiet) NaN.
  // Without branches, so that loops over conversions vectorise.
  explicit bfloat16(float value) {
    const auto wide = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = wide + 0x7fff + ((wide >> 16) & 1);
    const uint32_t quiet_nan = wide | 0x400000;
    bits = static_cast<uint16_t>(((wide & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded) >> 16);
  }
  /// Exact.
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

static_assert(sizeof(bfloat16) == 2);

}  // namespace qn
