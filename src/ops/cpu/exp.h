// exp() that compilers vectorise: the softmax kernels spend most of their time in it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace qn::cpu {

/// e^x for x <= 0, relative error below 3e-7; 0 below -87.3. Cody-Waite reduction, polynomial of degree 6.
inline float exp_nonpositive(float x) {
  const float clamped = x < -87.3f ? -87.3f : x;
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a libm call.
  const float n = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691e-4f;
  p = p * r + 1.3981999e-3f;
  p = p * r + 8.3334519e-3f;
  p = p * r + 4.1665796e-2f;
  p = p * r + 1.6666665e-1f;
  p = p * r + 5.0000001e-1f;
  p = p * r * r + r + 1.0f;
  const auto power = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < -87.3f ? 0.0f : p * power;
}

inline double exp_nonpositive(double x) { return std::exp(x); }

}  // namespace qn::cpu
