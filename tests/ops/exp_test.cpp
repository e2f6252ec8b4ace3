// The vectorised exponential and normal distribution of the kernels against the standard library.
#include "ops/cpu/exp.h"

#include <gtest/gtest.h>

#include <limits>
#include <numbers>

#include "ops/cpu/gelu.h"

namespace qn::cpu {
namespace {

constexpr double kPromised = 3e-7;  // relative error that exp.h states

TEST(ExpNonpositive, IsAccurateOverItsWholeRange) {
  double worst = 0.0;
  constexpr int kSteps = 2'000'000;
  for (int i = 0; i <= kSteps; ++i) {
    const float x = -87.3f * static_cast<float>(i) / kSteps;
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_nonpositive(x)) - exact) / exact);
  }
  EXPECT_LT(worst, kPromised);
}

TEST(ExpNonpositive, IsAccurateForTinyArguments) {
  for (float x = -1.0f; x < -1e-30f; x *= 0.7f)
    ASSERT_NEAR(exp_nonpositive(x), std::exp(static_cast<double>(x)), kPromised) << x;
  EXPECT_EQ(exp_nonpositive(0.0f), 1.0f);
  EXPECT_EQ(exp_nonpositive(-0.0f), 1.0f);
}

TEST(ExpNonpositive, VanishesFarBelowAndPassesNanOn) {
  for (const float x : {-87.4f, -1e4f, std::numeric_limits<float>::lowest(), -std::numeric_limits<float>::infinity()})
    EXPECT_EQ(exp_nonpositive(x), 0.0f) << x;
  EXPECT_TRUE(std::isnan(exp_nonpositive(std::numeric_limits<float>::quiet_NaN())));
}

TEST(StandardNormal, IsAccurate) {
  constexpr int kSteps = 200'000;
  double worst = 0.0, worst_gelu = 0.0, worst_derivative = 0.0;
  for (int i = -kSteps; i <= kSteps; ++i) {
    const float x = 12.0f * static_cast<float>(i) / kSteps;
    const auto exact = static_cast<double>(x);
    worst = std::max(
        worst, std::abs(static_cast<double>(standard_normal(x).distribution) - standard_normal(exact).distribution));
    worst_gelu = std::max(worst_gelu, std::abs(static_cast<double>(gelu(x)) - gelu(exact)) / (1.0 + std::abs(exact)));
    worst_derivative =
        std::max(worst_derivative, std::abs(static_cast<double>(gelu_derivative(x)) - gelu_derivative(exact)));
  }
  EXPECT_LT(worst, 3e-7);
  EXPECT_LT(worst_gelu, 3e-7);
  EXPECT_LT(worst_derivative, 5e-7);
}

TEST(GeluTanh, IsAccurateAndKnowsItsEnds) {
  for (int i = -3000; i <= 3000; ++i) {
    const float x = 0.01f * static_cast<float>(i);
    const auto exact = static_cast<double>(x);
    const double by_definition =
        exact * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (exact + 0.044715 * exact * exact * exact))) / 2;
    EXPECT_NEAR(gelu_tanh(exact), by_definition, 1e-14 * (1 + std::abs(exact))) << x;
    EXPECT_NEAR(gelu_tanh(x), by_definition, 5e-7 * (1 + std::abs(exact))) << x;
    EXPECT_NEAR(gelu_tanh_derivative(x), gelu_tanh_derivative(exact), 2e-6) << x;
  }
  for (const float far : {40.0f, 1e10f, 1e30f}) {
    EXPECT_EQ(gelu_tanh(far), far);
    EXPECT_EQ(gelu_tanh(-far), 0.0f);
    EXPECT_EQ(gelu_tanh_derivative(far), 1.0f);
    EXPECT_EQ(gelu_tanh_derivative(-far), 0.0f);
  }
  EXPECT_TRUE(std::isnan(gelu_tanh(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(gelu_tanh_derivative(std::numeric_limits<float>::quiet_NaN())));
}

TEST(StandardNormal, KnowsItsEnds) {
  EXPECT_EQ(gelu(0.0f), 0.0f);
  EXPECT_EQ(gelu(-40.0f), 0.0f);
  EXPECT_EQ(gelu(40.0f), 40.0f);
  EXPECT_TRUE(std::isnan(gelu(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace qn::cpu
