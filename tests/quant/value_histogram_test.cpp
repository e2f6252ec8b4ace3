#include "quant/value_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"
#include "quant/scalar_quantizer.h"
#include "quant_data.h"

namespace qn::test {
namespace {

using Floats = std::vector<float>;

std::vector<int64_t> counts_of(ValueHistogram histogram, double low, double high) {
  histogram.cover(low, high);
  return {histogram.counts().begin(), histogram.counts().end()};
}

Tensor tensor_of(const Floats& values) { return view_of(values.data(), {std::ssize(values)}); }

int64_t total(const std::vector<int64_t>& counts) {
  int64_t sum = 0;
  for (const int64_t count : counts) sum += count;
  return sum;
}

TEST(ValueHistogram, DependsOnTheValuesAlone) {
  const Floats small = random_weight(3000, "small", 1e-3), middle = random_weight(200000, "middle"),
               large = random_weight(50, "large", 1e6);
  ValueHistogram rising, falling, a, b;
  for (const Floats* x : {&small, &middle, &large}) rising.add(tensor_of(*x));
  for (const Floats* x : {&large, &middle, &small}) falling.add(tensor_of(*x));
  const auto counts = counts_of(rising, 0, 0);
  EXPECT_EQ(total(counts), 203050);
  EXPECT_EQ(counts_of(falling, 0, 0), counts);
  // As ranks do: each makes its bins as wide as those for the values of all.
  a.add(tensor_of(small));
  a.add(tensor_of(middle));
  b.add(tensor_of(large));
  const auto [low, high] = std::minmax_element(large.begin(), large.end());
  std::vector<int64_t> sums = counts_of(a, static_cast<double>(*low), static_cast<double>(*high));
  const std::vector<int64_t> other = counts_of(b, 0, 0);
  std::transform(sums.begin(), sums.end(), other.begin(), sums.begin(), std::plus<>());
  EXPECT_EQ(sums, counts);
}

TEST(ValueHistogram, CountsEveryTypeOfActivations) {
  const Floats values{-3.0f, -0.75f, 0.0f, 0.5f, 0.5f, 2.25f};  // exact in every type
  std::vector<double> doubles(values.begin(), values.end());
  std::vector<bfloat16> bf16;
  std::vector<uint16_t> halves;
  for (const float v : values) {
    bf16.emplace_back(v);
    halves.push_back(float_to_half(v));
  }
  const Shape shape{std::ssize(values)};
  ValueHistogram expected;
  expected.add(tensor_of(values));
  for (const Tensor& t :
       {view_of(doubles.data(), shape), view_of(bf16.data(), shape), Tensor{halves.data(), shape, DType::f16}}) {
    ValueHistogram histogram;
    histogram.add(t);
    EXPECT_EQ(counts_of(histogram, 0, 0), counts_of(expected, 0, 0)) << name_of(t.dtype);
  }
  // 3 is farthest out: bins are 2^-10 wide, and 0.5 is the first value of its bin.
  EXPECT_EQ(expected.counts()[ValueHistogram::kBins / 2 + 512], 2);
  EXPECT_EQ(expected.counts()[ValueHistogram::kBins / 2 - 3 * 1024], 1);
}

TEST(ValueHistogram, CountsNothingWhereAValueIsNotFinite) {
  ValueHistogram histogram;
  histogram.add(tensor_of({1.0f, std::numeric_limits<float>::quiet_NaN(), 2.0f}));
  histogram.add(tensor_of({1.0f, -std::numeric_limits<float>::infinity()}));
  histogram.add(tensor_of({}));
  EXPECT_EQ(total(counts_of(histogram, 0, 0)), 0);
  histogram.add(tensor_of({0.0f, 0.0f}));
  EXPECT_EQ(total(counts_of(histogram, 0, 0)), 2);
}

TEST(ValueHistogram, SearchFindsWhatOneOverTheWholeRangeFinds) {
  for (const int bits : {2, 3, 4, 8})
    for (const double shift : {0.0, 3.0, -1.0}) {
      SCOPED_TRACE(fmt::format("{} bits, shift {}", bits, shift));
      Floats values = random_weight(100000, "values");
      for (float& v : values) v += static_cast<float>(shift);
      values[17] = 25.0f;
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      const double from = static_cast<double>(*low), to = static_cast<double>(*high);
      ValueHistogram histogram;
      histogram.add(tensor_of(values));
      const auto found = histogram.search(from, to, int64_t{1} << bits);
      const BinRange kept =
          search_bins(histogram_of(values.data(), std::ssize(values), *low, *high), int64_t{1} << bits);
      const double width = (to - from) / static_cast<double>(kSearchBins);
      const double bin = 3.0 * width;
      EXPECT_NEAR(found.low, from + width * static_cast<double>(kept.first), bin);
      EXPECT_NEAR(found.high, from + width * static_cast<double>(kept.last + 1), bin);
      // With so many levels one value far outside is worth keeping.
      EXPECT_LE(found.high, bits < 8 ? 24.0 : to);
    }
}

/// The search begins by cutting the last bin.
TEST(ValueHistogram, KeepsBoundsThatAreNotCut) {
  const Floats two{-0.3f, 0.7f}, one{1.5f, 1.5f};
  ValueHistogram histogram, flat;
  histogram.add(tensor_of(two));
  const auto found = histogram.search(static_cast<double>(two[0]), static_cast<double>(two[1]), 256);
  EXPECT_EQ(static_cast<float>(found.low), two[0]);
  EXPECT_NEAR(found.high, static_cast<double>(two[1]), 1e-3);
  flat.add(tensor_of(one));
  EXPECT_EQ(flat.search(1.5, 1.5, 16).low, 1.5);
}

}  // namespace
}  // namespace qn::test
