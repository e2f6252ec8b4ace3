// IEEE half precision (binary16) conversion, round to nearest even: the storage type of packed centroids and biases.
#pragma once

#include <cstdint>

namespace qn {

inline constexpr float kLargestHalf = 65504.0f;

/// Rounds to nearest even; values beyond 65504 become infinity, NaN stays NaN.
uint16_t float_to_half(float value);
float half_to_float(uint16_t bits);

}  // namespace qn
