// The vectorised exponential of the softmax kernels against the standard library.
#include "ops/cpu/exp.h"

#include <gtest/gtest.h>

#include <limits>

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

}  // namespace
}  // namespace qn::cpu
