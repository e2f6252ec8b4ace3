#include "core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace qn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The value of half bits from the definition of binary16.
float by_definition(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, mantissa = bits & 0x3ff;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>((bits & 0x8000) != 0 ? -magnitude : magnitude);
}

bool is_nan(uint32_t half) { return (half & 0x7fff) > 0x7c00; }

TEST(Half, EveryValueConvertsAndRoundTrips) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const float value = half_to_float(bits);
    if (is_nan(h)) {
      ASSERT_TRUE(std::isnan(value)) << std::hex << h;
      ASSERT_TRUE(is_nan(float_to_half(value))) << std::hex << h;
      continue;
    }
    if ((h & 0x7fff) == 0x7c00) {
      ASSERT_EQ(value, h == 0x7c00 ? kInfinity : -kInfinity);
    } else {
      ASSERT_EQ(value, by_definition(bits)) << std::hex << h;
    }
    ASSERT_EQ(std::signbit(value), (h & 0x8000) != 0) << std::hex << h;
    ASSERT_EQ(float_to_half(value), bits) << std::hex << h;
  }
}

TEST(Half, TiesGoToTheEvenNeighbour) {
  for (uint16_t low = 0; low < 0x7bff; ++low) {  // all pairs of finite neighbours, subnormal ones included
    const auto high = static_cast<uint16_t>(low + 1);
    const float middle = (half_to_float(low) + half_to_float(high)) / 2;  // exact in float
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(float_to_half(middle), even) << low;
    ASSERT_EQ(float_to_half(-middle), even | 0x8000) << low;
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(float_to_half(std::nextafter(middle, kInfinity)), high) << low;
  }
}

TEST(Half, RangeEnds) {
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(float_to_half(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00) << "half way to the next power rounds to infinity";
  EXPECT_EQ(float_to_half(-65536.0f), 0xfc00);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(float_to_half(0x1.0p-25f), 0) << "half of the smallest value ties to zero";
  EXPECT_EQ(float_to_half(std::nextafter(0x1.0p-25f, 1.0f)), 1);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
  EXPECT_TRUE(is_nan(float_to_half(std::bit_cast<float>(0x7f800001u)))) << "a NaN whose upper bits are zero";
}

}  // namespace
}  // namespace qn
