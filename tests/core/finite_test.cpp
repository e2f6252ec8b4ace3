#include "core/finite.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace qn::test {
namespace {

template <typename T>
void expect_found(const std::vector<T>& bad, const std::vector<std::string>& names) {
  for (const int64_t n : {1, 5, 4096, 10000})
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      std::vector<T> values(static_cast<size_t>(n), static_cast<T>(std::numeric_limits<float>::max()));
      EXPECT_EQ(first_non_finite(view_of(values.data(), {n})), -1);
      EXPECT_EQ(describe_non_finite(view_of(values.data(), {n})), "");
      for (size_t i = 0; i < bad.size(); ++i) {
        values[static_cast<size_t>(at)] = bad[i];
        EXPECT_EQ(first_non_finite(view_of(values.data(), {n})), at);
        EXPECT_EQ(describe_non_finite(view_of(values.data(), {n})),
                  fmt::format("{} at element {} of {}", names[i], at, n));
      }
    }
}

TEST(Finite, FindsTheFirstOfEveryType) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::string> names{"nan", "inf", "-inf"};
  expect_found<float>({nan, infinity, -infinity}, names);
  expect_found<double>({nan, infinity, -infinity}, names);
  std::vector<uint16_t> halves{0x3c00, 0x7bff, 0xfbff, 0xfc00};
  EXPECT_EQ(describe_non_finite({halves.data(), {4}, DType::f16}), "-inf at element 3 of 4");
  EXPECT_EQ(describe_non_finite({halves.data(), {4}, DType::bf16}), "");
  halves[1] = 0x7fc0;
  EXPECT_EQ(describe_non_finite({halves.data(), {4}, DType::bf16}), "nan at element 1 of 4");
  EXPECT_EQ(first_non_finite({halves.data(), {2}, DType::i32}), -1);
}

}  // namespace
}  // namespace qn::test
