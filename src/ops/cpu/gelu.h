// GELU x * Phi(x), Phi the standard normal distribution, in a form that compilers vectorise: std::erf is a call per
// element.
#pragma once

#include <numbers>

#include "ops/cpu/exp.h"

namespace qn::cpu {

/// The parts of GELU and of its derivative.
template <typename P>
struct Normal {
  P distribution;  ///< Phi(x)
  P bell;          ///< exp(-x^2 / 2): the density is this over sqrt(2 pi)
};

/// Absolute error of the distribution below 3e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
inline Normal<float> standard_normal(float x) {
  const float bell = exp_nonpositive(-0.5f * x * x);
  const float t = 1.0f / (1.0f + (0.3275911f * std::numbers::sqrt2_v<float> / 2) * std::abs(x));
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * (p * t) * bell;
  return {x > 0.0f ? 1.0f - tail : tail, bell};
}

inline Normal<double> standard_normal(double x) {
  return {0.5 * std::erfc(-x * (std::numbers::sqrt2 / 2)), std::exp(-0.5 * x * x)};
}

template <typename P>
P gelu(P x) {
  return x * standard_normal(x).distribution;
}

template <typename P>
P gelu_derivative(P x) {
  const Normal<P> normal = standard_normal(x);
  return normal.distribution + x * normal.bell * static_cast<P>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
}

// GPT-2's form: x * sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x * (1 + tanh(u)) / 2.

/// 1 / (1 + exp(-v)).
template <typename P>
P sigmoid(P v) {
  const P small = exp_nonpositive(-std::abs(v));
  return (v > 0 ? P{1} : small) / (P{1} + small);
}

template <typename P>
inline constexpr P kTanhScale = static_cast<P>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
template <typename P>
inline constexpr P kTanhCubic = static_cast<P>(0.044715);

template <typename P>
P gelu_tanh(P x) {
  return x * sigmoid(kTanhScale<P> * (x + kTanhCubic<P> * x * x * x));
}

template <typename P>
P gelu_tanh_derivative(P x) {
  // Beyond 20 it is 0 or 1 to the last bit, and squares would overflow some day.
  const P near = x > 20 ? P{20} : x < -20 ? P{-20} : x;
  const P share = sigmoid(kTanhScale<P> * (near + kTanhCubic<P> * near * near * near));
  return share + near * share * (P{1} - share) * kTanhScale<P> * (P{1} + 3 * kTanhCubic<P> * near * near);
}

}  // namespace qn::cpu
