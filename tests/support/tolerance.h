// Every tolerance of the tests, and the one comparison that uses them. Unless said otherwise a tolerance r means
// max|actual - expected| <= r * max|expected| per tensor: single elements near zero carry the rounding of large ones.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <type_traits>

namespace qn::test {

// Against reference vectors (float32 results of another implementation).
inline constexpr double kForwardTolerance = 2e-5;       ///< logits, features, inner states
inline constexpr double kLossTolerance = 1e-5;          ///< loss sums, relative
inline constexpr double kGradientTolerance = 1e-4;      ///< gradients through a whole model
inline constexpr double kLayerTolerance = 1e-5;         ///< one layer: forward and gradients, quantizers, centroids
inline constexpr double kOptimizerTolerance = 1e-5;     ///< parameters and state after each step
inline constexpr double kTrajectoryTolerance = 1e-4;    ///< parameters after several whole updates
inline constexpr double kScaleTolerance = 1e-6;         ///< scales of scalar quantizers
inline constexpr double kScoreTolerance = 1e-4;         ///< log-probability per token, absolute
inline constexpr double kZeroGradientTolerance = 1e-5;  ///< gradients that are zero in exact arithmetic, absolute
inline constexpr double kDoubleTolerance = 1e-9;        ///< the same computation in double
inline constexpr double kScheduleTolerance = 1e-12;     ///< learning rates

// Without a reference.
inline constexpr double kFiniteDifferenceTolerance =
    1e-6;                                            ///< analytic gradient against central differences, in double
inline constexpr double kSummationTolerance = 1e-5;  ///< the same sums in another order (ranks, threads, backends)

// With activations in bf16, whose values carry rounding of up to 2^-8; parameters and sums are float.
inline constexpr double kBfloat16RoundingTolerance = 0.004;  ///< float results, rounded to bf16 once
inline constexpr double kBfloat16LayerTolerance = 0.02;      ///< one layer against double: forward and gradients
inline constexpr double kBfloat16ZeroGradientTolerance =
    0.02;                                               ///< gradients that are zero in exact arithmetic, absolute
inline constexpr double kBfloat16LossTolerance = 0.01;  ///< loss sums and loss curves, relative
inline constexpr double kBfloat16TrajectoryTolerance = 0.005;  ///< parameters after several updates, in another order

/// What a whole model of bf16 activations may differ from the exact one, in norm (close_in_norm). A rounding changes a
/// value by 0.41 * 2^-8 in the mean square over all mantissas, and roundings on the way add up like independent errors:
/// a layer stores 9 activations one after the other, input and head 3 more, and the backward as many gradients. ReLU
/// adds what comes from inputs that rounding takes to its other side: of normally distributed inputs with a relative
/// error e a share of e / pi, twice that of the active ones, and their gradients are there or not. Every bound is four
/// times the expected value, for tensors that are small or whose terms cancel.
struct Bfloat16Model {
  int64_t layers = 0;
  bool relu = false;

  double forward() const { return kSafety * forward_error(); }
  double gradient() const {
    const double rounding = 2.0 * forward_error() * forward_error();
    const double kinks = relu ? 2.0 * forward_error() / std::numbers::pi : 0.0;
    return kSafety * std::sqrt(rounding + kinks);
  }

 private:
  static constexpr double kSafety = 4.0;
  double forward_error() const { return 0.41 * 0x1p-8 * std::sqrt(9.0 * static_cast<double>(layers) + 3.0); }
};

// With activations in f16, whose values carry rounding of up to 2^-11.
inline constexpr double kHalfLayerTolerance = 0.003;         ///< one layer against double: forward and gradients
inline constexpr double kHalfZeroGradientTolerance = 0.003;  ///< gradients that are zero in exact arithmetic, absolute

namespace detail {
/// |a - b|; 0 for equal values and two NaNs, infinity when only one of them is finite.
inline double difference(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  return std::isfinite(a) && std::isfinite(b) ? std::abs(a - b) : INFINITY;
}
}  // namespace detail

/// max|actual - expected| / max|expected| over finite expected values; 0 when nothing differs.
template <typename T, typename U>
double max_relative_error(std::span<T> actual, std::span<U> expected) {
  double error = 0, scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = static_cast<double>(expected[i]);
    error = std::max(error, detail::difference(static_cast<double>(actual[i]), value));
    if (std::isfinite(value)) scale = std::max(scale, std::abs(value));
  }
  return error == 0 ? 0 : error / scale;
}

/// EXPECT_TRUE(close(actual, expected, kForwardTolerance)): equal sizes and max_relative_error() within `tolerance`; a
/// failure names the worst element. `floor` is an absolute difference that is always accepted (tensors of pure
/// rounding).
template <typename A, typename E>
requires(!std::is_arithmetic_v<A>) testing::AssertionResult
    close(const A& actual_values, const E& expected_values, double tolerance, double floor = 0) {
  const std::span actual(actual_values);
  const std::span expected(expected_values);
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure() << actual.size() << " elements instead of " << expected.size();
  }
  const double error = max_relative_error(actual, expected);
  if (error <= tolerance) return testing::AssertionSuccess() << "relative error " << error;
  size_t worst = 0;
  double worst_difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = detail::difference(static_cast<double>(actual[i]), static_cast<double>(expected[i]));
    if (difference > worst_difference) {
      worst_difference = difference;
      worst = i;
    }
  }
  if (worst_difference <= floor) return testing::AssertionSuccess() << "difference " << worst_difference;
  return testing::AssertionFailure() << "relative error " << error << " exceeds " << tolerance << "; worst at element "
                                     << worst << " of " << expected.size() << ": " << +actual[worst] << " instead of "
                                     << +expected[worst];
}

/// ||actual - expected|| <= tolerance * ||expected|| over the tensor: where single elements may be far off.
inline testing::AssertionResult close_in_norm(std::span<const double> actual, std::span<const double> expected,
                                              double tolerance) {
  if (actual.size() != expected.size())
    return testing::AssertionFailure() << actual.size() << " elements instead of " << expected.size();
  double error = 0, scale = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    scale += expected[i] * expected[i];
  }
  if (std::sqrt(error) <= tolerance * std::sqrt(scale)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "norm of the difference " << std::sqrt(error) << " exceeds " << tolerance
                                     << " x " << std::sqrt(scale);
}

/// close() for single numbers.
inline testing::AssertionResult close(double actual, double expected, double tolerance) {
  return close(std::span<const double>(&actual, 1), std::span<const double>(&expected, 1), tolerance);
}

}  // namespace qn::test
