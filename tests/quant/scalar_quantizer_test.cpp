#include "quant/scalar_quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/error.h"
#include "ops/uniform_grid.h"
#include "quant/bit_packing.h"
#include "quant_data.h"

namespace qn::test {
namespace {

using Floats = std::vector<float>;

const std::vector<RangeMethod> kMethods = all_values<RangeMethod>();

float level(const ScalarGrid& grid, size_t row, int code) {
  const size_t i = grid.scale.size() == 1 ? 0 : row;
  return (static_cast<float>(code) - grid.zero_point[i]) * grid.scale[i];
}

Floats decoded(const ScalarTable& table) {
  Floats values(table.codes.size());
  decode(table, values.data());
  return values;
}

class ScalarBits : public testing::TestWithParam<int> {
 protected:
  int bits() const { return GetParam(); }
  int last() const { return (1 << bits()) - 1; }
};

/// Values so dense that every level is the nearest one of some, in every row.
Floats filled(int64_t rows, int64_t cols, float low, float high) {
  Floats values;
  for (int64_t i = 0; i < rows * cols; ++i)
    values.push_back(low + (high - low) * static_cast<float>(i % cols) / static_cast<float>(cols - 1));
  return values;
}

TEST_P(ScalarBits, ReachesEveryLevelAndNoMore) {
  constexpr int64_t kRows = 3, kCols = 5000;
  for (const auto& [low, high] : {std::pair{-1.0f, 1.2f}, {-0.3f, 2.0f}, {0.5f, 3.0f}, {-4.0f, -0.25f}})
    for (const RangeMethod method : kMethods) {
      const bool symmetric = method == RangeMethod::channel;
      const float most = std::max(std::abs(low), std::abs(high));
      const Floats w = symmetric ? filled(kRows, kCols, -most, most)
                                 : filled(kRows, kCols, std::min(low, 0.0f), std::max(high, 0.0f));
      const ScalarTable table = encode(w.data(), kRows, kCols, fit_grid(w.data(), kRows, kCols, {bits(), method}));
      ASSERT_EQ(table.grid.scale.size(),
                method == RangeMethod::tensor || method == RangeMethod::histogram ? 1u : kRows);
      for (size_t r = 0; r < kRows; ++r) {
        const std::set<uint8_t> codes(table.codes.begin() + static_cast<int64_t>(r) * kCols,
                                      table.codes.begin() + static_cast<int64_t>(r + 1) * kCols);
        // Symmetric: half the steps to either side of a zero point that is a code, so that one end is on a tie.
        EXPECT_LE(codes.size(), static_cast<size_t>(last() + 1));
        EXPECT_GE(codes.size(), static_cast<size_t>(symmetric ? last() : last() + 1));
      }
    }
}

TEST_P(ScalarBits, AnyGridHasAllItsLevels) {
  const Floats w = random_weight(64, "fitted");
  for (const RangeMethod method : kMethods) {
    const ScalarGrid grid = fit_grid(w.data(), 4, 16, {bits(), method});
    Floats levels;
    for (size_t r = 0; r < 4; ++r)
      for (int code = 0; code <= last(); ++code) levels.push_back(level(grid, r, code));
    const ScalarTable table = encode(levels.data(), 4, last() + 1, grid);
    for (int i = 0; i < 4 * (last() + 1); ++i) ASSERT_EQ(table.codes[static_cast<size_t>(i)], i % (last() + 1));
    EXPECT_EQ(decoded(table), levels);
  }
}

TEST_P(ScalarBits, ErrorIsHalfAStepInsideAndTheBoundOutside) {
  constexpr int64_t kRows = 7, kCols = 400;
  const Floats fitted = random_weight(kRows * kCols, "fitted"), w = random_weight(kRows * kCols, "encoded", 1.3);
  for (const RangeMethod method : kMethods) {
    const ScalarGrid grid = fit_grid(fitted.data(), kRows, kCols, {bits(), method});
    const Floats q = decoded(encode(w.data(), kRows, kCols, grid));
    int64_t outside = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      const size_t row = i / kCols;
      const float low = level(grid, row, 0), high = level(grid, row, last());
      const float scale = grid.scale[grid.scale.size() == 1 ? 0 : row];
      if (w[i] >= low && w[i] <= high) {
        ASSERT_LE(std::abs(w[i] - q[i]), scale * 0.5f * (1.0f + 1e-4f)) << i;
      } else {
        ASSERT_EQ(q[i], w[i] < low ? low : high) << i;
        ++outside;
      }
    }
    EXPECT_GT(outside, 0);
  }
}

TEST_P(ScalarBits, ZeroIsALevel) {
  for (const RangeMethod method : kMethods)
    for (const float shift : {-5.0f, -0.7f, 0.0f, 0.3f, 8.0f}) {
      Floats w = random_weight(300, "zero");
      for (float& x : w) x += shift;
      const ScalarGrid grid = fit_grid(w.data(), 3, 100, {bits(), method});
      for (const float zero : grid.zero_point) {
        EXPECT_EQ(zero, std::floor(zero));
        EXPECT_TRUE(zero >= 0.0f && zero <= static_cast<float>(last()));
      }
      const Floats zeros(3, 0.0f);
      EXPECT_EQ(decoded(encode(zeros.data(), 3, 1, grid)), zeros);
    }
}

TEST_P(ScalarBits, TiesGoToTheEvenCode) {
  const ScalarGrid grid{bits(), {2.0f}, {1.0f}};
  for (int code = 0; code < last(); ++code) {
    const float tie = level(grid, 0, code) + 1.0f;
    EXPECT_EQ(encode(&tie, 1, 1, grid).codes[0], code % 2 == 0 ? code : code + 1);
  }
}

TEST_P(ScalarBits, CodesFitTheirBits) {
  const Floats w = random_weight(35, "packed");
  const ScalarTable table = encode(w.data(), 5, 7, fit_grid(w.data(), 5, 7, {bits(), RangeMethod::channel_affine}));
  EXPECT_NO_THROW(check_table(table, "w"));
  const std::vector<uint8_t> packed = pack_codes(table.codes, bits());
  EXPECT_EQ(std::ssize(packed), (35 * bits() + 7) / 8);
  std::vector<uint8_t> back(35);
  unpack_codes(packed, bits(), back);
  EXPECT_EQ(back, table.codes);
}

TEST_P(ScalarBits, ThreadsDoNotMatter) {
  constexpr int64_t kRows = 300, kCols = 400;
  const Floats w = random_weight(kRows * kCols, "threads");
  const int threads = omp_get_max_threads();
  for (const RangeMethod method : kMethods) {
    const auto table = [&](int count) {
      omp_set_num_threads(count);
      return encode(w.data(), kRows, kCols, fit_grid(w.data(), kRows, kCols, {bits(), method}));
    };
    const ScalarTable one = table(1), three = table(3);
    EXPECT_EQ(one.codes, three.codes);
    EXPECT_EQ(one.grid.scale, three.grid.scale);
    EXPECT_EQ(one.grid.zero_point, three.grid.zero_point);
  }
  omp_set_num_threads(threads);
}

INSTANTIATE_TEST_SUITE_P(Bits, ScalarBits, testing::Range(kMinScalarBits, kMaxScalarBits + 1));

TEST(ScalarQuantizer, AcceptsTensorsWithoutARange) {
  for (const RangeMethod method : kMethods) {
    const Floats zeros(6, 0.0f), same(6, -0.7f);
    const ScalarGrid of_zeros = fit_grid(zeros.data(), 2, 3, {8, method});
    for (const float scale : of_zeros.scale) EXPECT_EQ(scale, static_cast<float>(kSmallestScale));
    EXPECT_EQ(decoded(encode(zeros.data(), 2, 3, of_zeros)), zeros);
    const Floats back = decoded(encode(same.data(), 2, 3, fit_grid(same.data(), 2, 3, {8, method})));
    for (const float x : back) EXPECT_NEAR(x, -0.7f, method == RangeMethod::channel ? 0.7 / 255 * 1.001 : 1e-6);
    const ScalarGrid of_nothing = fit_grid(nullptr, 0, 3, {8, method});
    for (const float scale : of_nothing.scale) EXPECT_EQ(scale, 1.0f);
    for (const float zero : of_nothing.zero_point) EXPECT_EQ(zero, 0.0f);
    EXPECT_TRUE(encode(nullptr, 0, 3, of_nothing).codes.empty());
  }
}

TEST(ScalarQuantizer, RangesMayBeWiderThanAnyFloat) {
  const float most = 0.75f * std::numeric_limits<float>::max();
  const Floats w{-most, most, 0.0f, 1.0f};
  for (const RangeMethod method : kMethods)
    for (const float x : decoded(encode(w.data(), 1, 4, fit_grid(w.data(), 1, 4, {8, method}))))
      EXPECT_TRUE(std::isfinite(x)) << x;
}

TEST(ScalarQuantizer, NamesWhatHasNoCode) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
    for (const RangeMethod method : kMethods) {
      Floats w(200, 0.5f);
      w[3 * 40 + 39] = bad;
      const auto names_the_place = testing::ThrowsMessage<Error>(testing::HasSubstr("row 3, column 39"));
      EXPECT_THAT([&] { fit_grid(w.data(), 5, 40, {8, method}); }, names_the_place);
      EXPECT_THAT([&] { encode(w.data(), 5, 40, {8, {1.0f}, {0.0f}}); }, names_the_place);
    }
}

TEST(ScalarQuantizer, RefusesOtherBits) {
  const float x = 1.0f;
  for (const int bits : {-1, 0, 1, 9, 16}) EXPECT_THROW(fit_grid(&x, 1, 1, {bits, RangeMethod::tensor}), Error);
}

TEST(ScalarQuantizer, DecodesInDouble) {
  const ScalarTable table{1, 3, {4, {0.1f}, {7.0f}}, {0, 7, 15}};
  std::vector<double> values(3);
  decode(table, values.data());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(values[i], (table.codes[i] - 7.0) * static_cast<double>(0.1f));
}

TEST(ScalarQuantizer, ChecksTablesFromFiles) {
  const ScalarTable good{2, 2, {4, {0.5f, 0.25f}, {0.0f, 15.0f}}, {0, 15, 3, 4}};
  EXPECT_NO_THROW(check_table(good, "w"));
  const auto expect_refused = [&](const char* reason, const auto& change) {
    ScalarTable bad = good;
    change(bad);
    EXPECT_THAT([&] { check_table(bad, "w"); },
                testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("'w'"), testing::HasSubstr(reason))));
  };
  expect_refused("9 bits", [](ScalarTable& t) { t.grid.bits = 9; });
  expect_refused("3 codes", [](ScalarTable& t) { t.codes.pop_back(); });
  expect_refused("3 scales", [](ScalarTable& t) { t.grid.scale.push_back(1.0f); });
  expect_refused("scale 1", [](ScalarTable& t) { t.grid.scale[1] = 0.0f; });
  expect_refused("scale 0", [](ScalarTable& t) { t.grid.scale[0] = std::nanf(""); });
  expect_refused("zero point 1", [](ScalarTable& t) { t.grid.zero_point[1] = 15.5f; });
  expect_refused("zero point 0", [](ScalarTable& t) { t.grid.zero_point[0] = 16.0f; });
  expect_refused("code 16", [](ScalarTable& t) { t.codes[2] = 16; });
}

// Range search, step by step as reference 2.3 has it, with lengths in units of the values.

double slow_error(const std::vector<int64_t>& h, int64_t i, int64_t j, double w, int64_t levels) {
  const double D = w * static_cast<double>(j - i + 1) / static_cast<double>(levels);
  const auto place = [&](double x) {
    return std::min(std::max(std::floor(x / D), 0.0), static_cast<double>(levels - 1));
  };
  double sum = 0.0;
  for (size_t b = 0; b < h.size(); ++b) {
    const double begin = (static_cast<double>(b) - static_cast<double>(i)) * w, end = begin + w;
    const double db = place(begin), de = place(end), cb = (db + 0.5) * D, ce = (de + 0.5) * D;
    sum += static_cast<double>(h[b]) / w / 3.0 *
           ((std::pow(D / 2, 3) - std::pow(begin - cb, 3)) + (de - db - 1) * 2 * std::pow(D / 2, 3) +
            (std::pow(end - ce, 3) + std::pow(D / 2, 3)));
  }
  return sum;
}

BinRange slow_search(const std::vector<int64_t>& h, double w, int64_t levels) {
  const int64_t bins = std::ssize(h);
  const auto count_up_to = [&](int64_t b) {
    int64_t sum = 0;
    for (int64_t k = 0; k <= b; ++k) sum += h[static_cast<size_t>(k)];
    return static_cast<double>(sum);
  };
  const double n = count_up_to(bins - 1);
  double alpha = 0, beta = 1, best = INFINITY;
  int64_t i = 0, j = bins - 1;
  while (alpha < beta) {
    const double na = alpha + 1e-5, nb = beta - 1e-5;
    int64_t l = i, r = j;
    while (l < j && count_up_to(l) < na * n) ++l;
    while (r > i && count_up_to(r) > nb * n) --r;
    int64_t first = i, last = j;
    if (l - i > j - r)
      first = l, alpha = na;
    else
      last = r, beta = nb;
    if (first == i && last == j) continue;
    const double error = slow_error(h, first, last, w, levels);
    if (error > best) break;
    i = first, j = last, best = error;
  }
  return {i, j};
}

TEST(RangeSearch, IsTheDirectOne) {
  for (const int bits : {2, 3, 5, 8})
    for (const double power : {1.0, 3.0, 5.0}) {  // the larger, the longer the tails
      Floats values = random_weight(20'000, "search");
      for (float& x : values) x = static_cast<float>(std::copysign(std::pow(std::abs(x), power), x)) + 0.3f;
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      std::vector<int64_t> counts = histogram_of(values.data(), std::ssize(values), *low, *high), few;
      for (size_t b = 0; b < counts.size(); b += 8)  // fewer bins, for the sake of the slow one
        few.push_back(std::accumulate(counts.begin() + static_cast<int64_t>(b),
                                      counts.begin() + static_cast<int64_t>(b) + 8, int64_t{0}));
      const BinRange kept = search_bins(few, int64_t{1} << bits);
      EXPECT_EQ(kept, slow_search(few, (*high - *low) / 256.0, int64_t{1} << bits)) << bits << " bits, power " << power;
      EXPECT_TRUE(bits == 8 || power == 1.0 || kept.first > 0 || kept.last < 255) << "nothing was cut off";
    }
}

TEST(RangeSearch, CutsWhatFewValuesNeed) {
  Floats w = random_weight(100'000, "outlier");
  w[17] = 60.0f;
  const ScalarGrid whole = fit_grid(w.data(), 1, std::ssize(w), {4, RangeMethod::tensor});
  const ScalarGrid cut = fit_grid(w.data(), 1, std::ssize(w), {4, RangeMethod::histogram});
  EXPECT_LT(cut.scale[0], 0.5f * whole.scale[0]);
}

TEST(RangeSearch, CountsEveryValueOnce) {
  const Floats values{0.0f, 0.0f, 1.0f, 0.5f, 2.0f, 2.0f};
  const std::vector<int64_t> counts = histogram_of(values.data(), 6, 0.0f, 2.0f);
  EXPECT_EQ(counts.size(), static_cast<size_t>(kSearchBins));
  EXPECT_EQ(counts[0], 2);
  EXPECT_EQ(counts[kSearchBins / 4], 1);
  EXPECT_EQ(counts[kSearchBins / 2], 1);
  EXPECT_EQ(counts.back(), 2);
}

}  // namespace
}  // namespace qn::test
