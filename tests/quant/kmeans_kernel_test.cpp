#include "quant/kmeans_kernel.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant_data.h"

namespace qn::test {
namespace {

/// Codes by the definition, in double.
std::vector<uint16_t> naive_codes(const SubVectors& v, const std::vector<float>& centroids) {
  std::vector<uint16_t> codes;
  for (int64_t m = 0; m < v.count; ++m) {
    double best = std::numeric_limits<double>::infinity();
    uint16_t code = 0;
    for (int64_t k = 0; k < std::ssize(centroids) / v.dim; ++k) {
      double distance = 0;
      for (int64_t t = 0; t < v.dim; ++t) {
        const double diff = static_cast<double>(v.data[m * v.dim + t]) -
                            static_cast<double>(centroids[static_cast<size_t>(k * v.dim + t)]);
        const float* h = v.column_importance;
        distance += h != nullptr ? h[m % v.blocks_per_row * v.dim + t] * diff * diff : diff * diff;
      }
      if (distance < best) {
        best = distance;
        code = static_cast<uint16_t>(k);
      }
    }
    codes.push_back(code);
  }
  return codes;
}

struct Case {
  int64_t count, dim, n_centroids;
  double offset;
  bool weighted, columns = false;
};

class KMeansKernel : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case c = GetParam();
    weight_ = random_weight(c.count * c.dim, "weight");
    centroids_ = random_weight(c.n_centroids * c.dim, "centroids");
    for (float& x : weight_) x += static_cast<float>(c.offset);
    for (float& x : centroids_) x += static_cast<float>(c.offset);
    importance_ = random_weight(c.count / kBlocksPerRow + 1, "importance");
    for (float& w : importance_) w = w * w;
    columns_ = random_weight(kBlocksPerRow * c.dim, "columns");
    for (float& w : columns_) w = w * w;
    columns_.front() = 0.0f;
    vectors_ = {.data = weight_.data(),
                .count = c.count,
                .dim = c.dim,
                .blocks_per_row = kBlocksPerRow,
                .row_importance = c.weighted ? importance_.data() : nullptr,
                .max_abs = 2.0 * c.offset + 10.0,
                .max_importance = c.weighted ? 20.0 : 1.0,
                .column_importance = c.columns ? columns_.data() : nullptr};
    if (c.columns) vectors_.max_importance *= 20.0;
  }

  static constexpr int64_t kBlocksPerRow = 5;
  std::vector<float> weight_, centroids_, importance_, columns_;
  SubVectors vectors_;
};

TEST_P(KMeansKernel, CodesAreThoseOfDoubleArithmetic) {
  std::vector<uint16_t> codes(static_cast<size_t>(vectors_.count));
  assign_parallel(vectors_, 0, vectors_.count, CentroidTable(centroids_, vectors_.dim), codes.data(), nullptr);
  EXPECT_EQ(codes, naive_codes(vectors_, centroids_));
}

TEST_P(KMeansKernel, InstructionSetsAgreeBitwise) {
  const CentroidTable table(centroids_, vectors_.dim);
  const StatsLayout layout{table.count(), vectors_.dim, vectors_.weights_per_cluster()};
  std::vector<uint16_t> expected;
  std::vector<double> expected_stats;
  for (const AssignVariant& variant : assign_variants()) {
    if (!variant.supported) continue;
    SCOPED_TRACE(variant.name);
    std::vector<uint16_t> codes(static_cast<size_t>(vectors_.count));
    std::vector<double> stats(static_cast<size_t>(layout.size()), 0.0);
    assign_range(vectors_, 0, vectors_.count, table, codes.data(), stats.data(), &variant);
    if (expected.empty()) {
      expected = codes;
      expected_stats = stats;
    }
    EXPECT_EQ(codes, expected);
    EXPECT_EQ(stats, expected_stats);
  }
  EXPECT_EQ(expected, naive_codes(vectors_, centroids_));
}

TEST_P(KMeansKernel, SumsDoNotDependOnSharingOut) {
  const CentroidTable table(centroids_, vectors_.dim);
  const StatsLayout layout{table.count(), vectors_.dim, vectors_.weights_per_cluster()};
  std::vector<uint16_t> codes(static_cast<size_t>(vectors_.count));
  std::vector<double> whole(static_cast<size_t>(layout.size())), parts(whole.size(), 0.0);
  assign_parallel(vectors_, 0, vectors_.count, table, codes.data(), whole.data());
  // Backwards in odd pieces: bitwise the same because every sum is exact.
  for (int64_t end = vectors_.count; end > 0; end -= std::min<int64_t>(end, 77))
    assign_range(vectors_, std::max<int64_t>(0, end - 77), end, table, codes.data(), parts.data());
  EXPECT_EQ(whole, parts);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(5);
  assign_parallel(vectors_, 0, vectors_.count, table, codes.data(), parts.data());
  omp_set_num_threads(threads);
  EXPECT_EQ(whole, parts);
}

TEST_P(KMeansKernel, SumsAreThoseOfTheBlocks) {
  const CentroidTable table(centroids_, vectors_.dim);
  const StatsLayout layout{table.count(), vectors_.dim, vectors_.weights_per_cluster()};
  std::vector<uint16_t> codes(static_cast<size_t>(vectors_.count));
  std::vector<double> stats(static_cast<size_t>(layout.size()));
  assign_parallel(vectors_, 0, vectors_.count, table, codes.data(), stats.data());
  std::vector<double> expected(stats.size(), 0.0);
  const auto at = [&](int64_t i) -> double& { return expected[static_cast<size_t>(i)]; };
  for (int64_t m = 0; m < vectors_.count; ++m) {
    const int64_t k = codes[static_cast<size_t>(m)];
    const double row = vectors_.weighted() ? importance_[static_cast<size_t>(m / kBlocksPerRow)] : 1.0;
    at(layout.count(k)) += 1;
    if (layout.weights == 1 && !GetParam().columns) at(layout.weight(k)) += row;
    for (int64_t t = 0; t < vectors_.dim; ++t) {
      double w = row;
      if (GetParam().columns) {
        w *= static_cast<double>(columns_[static_cast<size_t>(m % kBlocksPerRow * vectors_.dim + t)]);
        at(layout.weight(k) + t) += w;
      }
      const double diff = static_cast<double>(weight_[static_cast<size_t>(m * vectors_.dim + t)]) -
                          static_cast<double>(centroids_[static_cast<size_t>(k * vectors_.dim + t)]);
      at(layout.error(k)) += w * diff * diff;
      at(layout.residual(k) + t) += w * diff;
    }
  }
  // One grid step per term is all that may be lost: 2^-50 of the largest possible sum.
  const double largest = 4 * vectors_.max_abs * vectors_.max_abs * vectors_.max_importance *
                         static_cast<double>(vectors_.dim * vectors_.count);
  for (size_t i = 0; i < stats.size(); ++i)
    ASSERT_NEAR(stats[i], expected[i], 0x1p-50 * largest * static_cast<double>(vectors_.count)) << i;
}

// The large offsets make float32 distances useless (the spread is at their rounding), so double has to decide.
INSTANTIATE_TEST_SUITE_P(Sizes, KMeansKernel,
                         testing::Values(Case{4000, 8, 256, 0, false}, Case{4001, 4, 37, 0, false},
                                         Case{1030, 9, 16, 0, false}, Case{517, 1, 5, 0, false},
                                         Case{300, 32, 300, 0, false}, Case{3, 8, 2, 0, false},
                                         Case{50, 8, 1, 0, false}, Case{2000, 8, 64, 3000, false},
                                         Case{2000, 4, 64, 3000, false}, Case{2000, 8, 64, 0, true},
                                         Case{2000, 4, 64, 3000, true}, Case{700, 6, 20, 0, true},
                                         Case{4000, 8, 256, 0, false, true}, Case{2001, 4, 37, 0, true, true},
                                         Case{517, 1, 5, 0, true, true}, Case{2000, 8, 64, 3000, true, true},
                                         Case{700, 9, 80, 0, false, true}, Case{50, 8, 1, 0, false, true}));

/// Sub-vectors and centroids of one size, with bounds no larger than they must be.
struct Spread {
  double scale;
  float outlier;  ///< times the scale; one element in sub-vectors and in centroids
  int64_t dim, n_centroids;
};

class KMeansKernelRange : public testing::TestWithParam<Spread> {};

TEST_P(KMeansKernelRange, EveryInstructionSetFindsTheNearest) {
  const Spread p = GetParam();
  std::vector<float> weight = random_weight(1500 * p.dim, "weight"),
                     centroids = random_weight(p.n_centroids * p.dim, "c");
  for (int64_t i = 0; i < p.dim; ++i)  // equal centroids: the first one wins
    centroids[static_cast<size_t>((p.n_centroids / 2) * p.dim + i)] = centroids[static_cast<size_t>(i)];
  weight[7] = centroids[centroids.size() - 2] = p.outlier;
  double largest = 0.0;
  for (std::vector<float>* values : {&weight, &centroids})
    for (float& v : *values) {
      v *= static_cast<float>(p.scale);
      largest = std::max(largest, std::abs(static_cast<double>(v)));
    }
  const SubVectors vectors{.data = weight.data(), .count = 1500, .dim = p.dim, .max_abs = largest};
  const std::vector<uint16_t> expected = naive_codes(vectors, centroids);
  const CentroidTable table(centroids, p.dim);
  for (const AssignVariant& variant : assign_variants()) {
    if (!variant.supported) continue;
    std::vector<uint16_t> codes(expected.size());
    assign_range(vectors, 0, vectors.count, table, codes.data(), nullptr, &variant);
    EXPECT_EQ(codes, expected) << variant.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Spreads, KMeansKernelRange,
                         testing::Values(Spread{1, 4, 8, 256}, Spread{1, -40, 8, 256}, Spread{1, 1e4f, 8, 255},
                                         Spread{1e-6, 30, 4, 512}, Spread{1e-6, 30, 4, 513}, Spread{1e12, 5, 8, 17},
                                         Spread{1e-16, 5, 8, 64}, Spread{1e16, 5, 4, 64}, Spread{0, 1, 8, 32}));

TEST(KMeansKernelTies, LowestIndexWins) {
  const std::vector<float> weight = {1, 1, 0, 0};
  const std::vector<float> centroids = {2, 2, 0, 0, 0, 2, 0, 0, 2, 0};  // 1,1 is equally far from all
  const SubVectors vectors{.data = weight.data(), .count = 2, .dim = 2, .max_abs = 2};
  std::vector<uint16_t> codes(2);
  assign_parallel(vectors, 0, 2, CentroidTable(centroids, 2), codes.data(), nullptr);
  EXPECT_EQ(codes, (std::vector<uint16_t>{0, 1}));
}

TEST(KMeansKernelTies, TinyValuesDoNotUnderflow) {
  const std::vector<float> weight = {1e-30f, 3e-30f, -2e-30f, 9e-30f};
  const std::vector<float> centroids = {0, 3e-30f, 1e-29f, -2e-30f};
  const SubVectors vectors{.data = weight.data(), .count = 4, .dim = 1, .max_abs = 1e-29};
  std::vector<uint16_t> codes(4);
  assign_parallel(vectors, 0, 4, CentroidTable(centroids, 1), codes.data(), nullptr);
  EXPECT_EQ(codes, (std::vector<uint16_t>{0, 1, 3, 2}));
}

}  // namespace
}  // namespace qn::test
