#include "core/bfloat16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace qn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bfloat16 of_bits(uint32_t bits) {
  bfloat16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

uint16_t rounded(float value) { return bfloat16(value).bits; }
bool is_nan(uint32_t bits) { return (bits & 0x7fff) > 0x7f80; }

/// The value from the definition: 8 bits of exponent, 7 of mantissa.
float by_definition(uint32_t bits) {
  const int exponent = static_cast<int>((bits >> 7) & 0xff), mantissa = static_cast<int>(bits & 0x7f);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -133) : std::ldexp(128 + mantissa, exponent - 134);
  return static_cast<float>((bits & 0x8000) != 0 ? -magnitude : magnitude);
}

TEST(Bfloat16, EveryValueConvertsAndRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = of_bits(bits);
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << std::hex << bits;
    if (is_nan(bits)) {
      ASSERT_TRUE(std::isnan(value)) << std::hex << bits;
      ASSERT_EQ(rounded(value), bits | 0x40) << std::hex << bits;  // quiet
      continue;
    }
    if ((bits & 0x7fff) == 0x7f80) {
      ASSERT_EQ(value, bits == 0x7f80 ? kInfinity : -kInfinity);
    } else {
      ASSERT_EQ(value, by_definition(bits)) << std::hex << bits;
    }
    ASSERT_EQ(rounded(value), bits) << std::hex << bits;
  }
}

TEST(Bfloat16, TiesGoToTheEvenNeighbour) {
  for (uint32_t low = 0; low < 0x7f7f; ++low) {  // all pairs of finite neighbours, denormal ones included
    const uint32_t high = low + 1, even = low % 2 == 0 ? low : high;
    const auto middle =
        static_cast<float>((static_cast<double>(of_bits(low)) + static_cast<double>(of_bits(high))) / 2);
    ASSERT_EQ(rounded(middle), even) << low;
    ASSERT_EQ(rounded(-middle), even | 0x8000) << low;
    ASSERT_EQ(rounded(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(rounded(std::nextafter(middle, kInfinity)), high) << low;
  }
}

TEST(Bfloat16, RangeEnds) {
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), 0x7f80) << "beyond the largest value";
  EXPECT_EQ(rounded(std::nextafter(0x1.ffp127f, 0.0f)), 0x7f7f);
  EXPECT_EQ(rounded(-0x1.ffp127f), 0xff80) << "half way to the next power rounds to infinity";
  EXPECT_EQ(rounded(-0.0f), 0x8000);
  EXPECT_EQ(rounded(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(rounded(std::numeric_limits<float>::min()), 0x0080);
  EXPECT_TRUE(is_nan(rounded(std::bit_cast<float>(0x7f800001u)))) << "a NaN whose upper bits are zero";
  EXPECT_TRUE(is_nan(rounded(std::bit_cast<float>(0x7fffffffu)))) << "a NaN that rounding up would turn into zero";
}

// What compilers make of a loop must not differ from the single conversion.
TEST(Bfloat16, LoopsConvertTheSame) {
  std::vector<float> values;
  for (uint32_t high = 0; high < 65536; high += 7)
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  std::vector<bfloat16> narrow(values.size());
  for (size_t i = 0; i < values.size(); ++i) narrow[i] = bfloat16(values[i]);
  std::vector<float> wide(values.size());
  for (size_t i = 0; i < values.size(); ++i) wide[i] = narrow[i];
  for (size_t i = 0; i < values.size(); ++i) {
    volatile float value = values[i];
    ASSERT_EQ(narrow[i].bits, rounded(value)) << i;
    ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), static_cast<uint32_t>(narrow[i].bits) << 16) << i;
  }
}

}  // namespace
}  // namespace qn
