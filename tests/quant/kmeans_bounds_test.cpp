// E-steps with bounds, and with every preselection, against those that look at every centroid: the same bits.
#include "quant/kmeans_bounds.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "quant_data.h"
#include "same_bits.h"
#include "support/test_comm.h"

namespace qn::test {
namespace {

const AssignVariant* variant(const std::string& name) {
  const auto all = assign_variants();
  const auto found = std::ranges::find(all, name, &AssignVariant::name);
  return found != all.end() && found->supported ? &*found : nullptr;
}

std::vector<const AssignVariant*> variants_with_bounds() {
  std::vector<const AssignVariant*> found;
  for (const AssignVariant& v : assign_variants())
    if (v.supported && v.bounds) found.push_back(&v);
  return found;
}

/// Uses a variant as long as it lives.
struct Use {
  explicit Use(const AssignVariant* v) { use_assign_variant(v); }
  ~Use() { use_assign_variant(nullptr); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
};

struct Input {
  const char* name;
  int64_t count, dim, n_centroids;
  double scale = 1.0;
  int64_t distinct = 0;   ///< sub-vectors repeat after so many (0: all differ)
  double grid = 0.0;      ///< elements are multiples of it: many distances are equal (0: any numbers)
  double offset = 0.0;    ///< of all elements
  bool weighted = false;  ///< rows have importances
};

class KMeansBounds : public testing::TestWithParam<Input> {
 protected:
  void SetUp() override {
    const Input p = GetParam();
    values_ = random_weight(p.count * p.dim, p.name);
    for (size_t i = 0; i < values_.size(); ++i) {
      if (p.distinct > 0) values_[i] = values_[i % static_cast<size_t>(p.distinct * p.dim)];
      values_[i] = shaped(values_[i]);
    }
    for (int64_t t = 0; t < p.dim; ++t) values_[static_cast<size_t>(t)] = 0.0f;
    importance_ = random_weight(p.count / 3 + 1, "importance");
    for (float& w : importance_) w *= w;
    vectors_ = {.data = values_.data(),
                .count = p.count,
                .dim = p.dim,
                .blocks_per_row = 3,
                .row_importance = p.weighted ? importance_.data() : nullptr,
                .max_abs = 8.0 * p.scale + p.offset,
                .max_importance = 20.0};
    centroids_ = random_weight(p.n_centroids * p.dim, "centroids");
    for (float& c : centroids_) c = shaped(c);
  }

  float shaped(float value) const {
    const Input& p = GetParam();
    if (p.grid > 0.0) value = static_cast<float>(std::round(static_cast<double>(value) / p.grid) * p.grid);
    return static_cast<float>(static_cast<double>(value) * p.scale + p.offset);
  }

  /// Centroids before E-step `step`: they move less and less, some not at all, a few jump at times, and two are equal.
  void move(int step) {
    const Input& p = GetParam();
    const std::vector<float> way = random_weight(std::ssize(centroids_), fmt::format("way{}", step));
    const auto d = static_cast<size_t>(p.dim);
    for (size_t i = 0; i < centroids_.size(); ++i) {
      const size_t k = i / d;
      const double size = k % 5 == 4 ? 0.0 : step == 6 && k % 11 == 3 ? 1.0 : 0.3 / (step * step);
      if (step % 4 == 3 && p.grid == 0.0) continue;  // nobody moves
      centroids_[i] += static_cast<float>(size * p.scale * static_cast<double>(way[i]));
      const double limit = vectors_.max_abs;
      centroids_[i] = static_cast<float>(std::clamp(static_cast<double>(centroids_[i]), -limit, limit));
    }
    const size_t last = centroids_.size() - d;
    std::copy_n(centroids_.begin(), d, centroids_.begin() + static_cast<std::ptrdiff_t>(last / d / 2 * d));
  }

  std::vector<float> values_, importance_, centroids_;
  SubVectors vectors_;
};

TEST_P(KMeansBounds, GiveTheBitsOfEStepsWithout) {
  const std::vector<const AssignVariant*> variants = variants_with_bounds();
  if (variants.empty()) GTEST_SKIP() << "this processor has no AVX2";
  const Input& p = GetParam();
  // A share of the sub-vectors, as a rank has it; it begins in the middle of a chunk.
  const int64_t begin = std::min<int64_t>(p.count / 7, 100), end = p.count;
  const StatsLayout layout{p.n_centroids, p.dim, vectors_.weights_per_cluster()};
  std::vector<uint16_t> expected_codes(static_cast<size_t>(end - begin));
  std::vector<double> stats(static_cast<size_t>(layout.size())), expected(stats.size());
  std::deque<AssignBounds> bounds;
  for (size_t i = 0; i < variants.size(); ++i) bounds.emplace_back(/*eager=*/true);
  std::vector<std::vector<uint16_t>> codes(variants.size(), expected_codes);
  for (int step = 1; step <= 10; ++step) {
    move(step);
    const CentroidTable table(centroids_, p.dim);
    {
      const Use use(variant("baseline"));
      assign_parallel(vectors_, begin, end, table, expected_codes.data(), expected.data());
    }
    for (size_t i = 0; i < variants.size(); ++i) {
      SCOPED_TRACE(fmt::format("{}, step {}", variants[i]->name, step));
      const Use use(variants[i]);
      assign_parallel(vectors_, begin, end, table, codes[i].data(), stats.data(), &bounds[i]);
      ASSERT_EQ(codes[i], expected_codes);
      ASSERT_EQ(stats, expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, KMeansBounds,
    testing::Values(
        Input{"plain", 5000, 8, 256}, Input{"four", 5000, 4, 256}, Input{"few_centroids", 3000, 8, 17},
        Input{"one_centroid", 300, 8, 1}, Input{"many_centroids", 3000, 8, 1000}, Input{"too_many", 1500, 4, 1500},
        Input{"odd_number", 2000, 4, 131}, Input{"few_vectors", 3, 8, 5}, Input{"one_vector", 1, 4, 3},
        Input{"duplicates", 4000, 8, 64, 1.0, 50}, Input{"one_value", 2000, 8, 64, 1.0, 1},
        Input{"grid", 4000, 4, 64, 1.0, 0, 1.0}, Input{"fine_grid", 4000, 8, 200, 1.0, 0, 0.5},
        Input{"tiny", 2000, 8, 64, 1e-12}, Input{"too_tiny", 1000, 8, 64, 1e-30}, Input{"huge", 2000, 8, 64, 1e11},
        Input{"far_off", 2000, 8, 64, 1.0, 0, 0.0, 300.0}, Input{"farther_off", 1000, 4, 64, 1.0, 0, 0.0, 1e6},
        Input{"weighted", 4000, 8, 128, 1.0, 0, 0.0, 0.0, true}, Input{"one_element", 900, 1, 20},
        Input{"two", 900, 2, 20}, Input{"three", 900, 3, 33}, Input{"five", 900, 5, 33}, Input{"six", 900, 6, 70},
        Input{"seven", 900, 7, 33}, Input{"nine", 900, 9, 40}, Input{"ten", 900, 10, 33}, Input{"eleven", 700, 11, 33},
        Input{"twelve", 700, 12, 33}, Input{"thirteen", 700, 13, 33}, Input{"fourteen", 700, 14, 33},
        Input{"fifteen", 700, 15, 33}, Input{"sixteen", 700, 16, 40}),
    [](const auto& test) { return std::string(test.param.name); });

/// A stage of weights that are large enough for bounds: plain, with clusters that start empty, with importances.
class LargeStage {
 public:
  LargeStage() {
    for (const char* name : {"plain", "four", "starved", "rows", "columns"}) {
      const bool four = std::string(name) == "four";
      weights_.push_back(random_weight(kRows * kCols, name, 0.05));
      problems_.push_back({.name = name,
                           .weight = weights_.back().data(),
                           .rows = kRows,
                           .cols = kCols,
                           .block_size = four ? 4 : 8,
                           .n_centroids = four ? 256 : 64});
    }
    problems_[2].initial_centroids.assign(64 * 8, 0.01f);
    rows_ = random_weight(kRows, "importance of rows");
    for (float& w : rows_) w *= w;
    columns_ = random_weight(kCols, "importance of columns");
    for (float& w : columns_) w *= w;
    problems_[3].row_importance = rows_;
    problems_[4].column_importance = columns_;
  }
  const std::vector<KMeansProblem>& problems() const { return problems_; }

 private:
  static constexpr int64_t kRows = 300, kCols = 256;  // 9600 sub-vectors of 8
  std::vector<std::vector<float>> weights_;
  std::vector<float> rows_, columns_;
  std::vector<KMeansProblem> problems_;
};

struct Done {
  std::vector<WeightResult> results;
  KMeansState state;
};

/// 15 iterations; after `stop_after` of them another k-means goes on from the state.
Done run_with(const AssignVariant* v, const LargeStage& stage, int64_t stop_after = 15) {
  const Use use(v);
  auto kmeans = std::make_unique<StageKMeans>(stage.problems(), KMeansOptions{.seed = 5}, comm());
  while (kmeans->state().iteration < stop_after) kmeans->step();
  if (stop_after < 15) {
    const KMeansState state = kmeans->state();
    kmeans = std::make_unique<StageKMeans>(stage.problems(), KMeansOptions{.seed = 5}, comm());
    kmeans->restore(state);
  }
  while (kmeans->step()) continue;
  return {kmeans->finish(), kmeans->state()};
}

TEST(KMeansVariants, AStageHasTheSameBitsWithEveryInstructionSetAndAfterResuming) {
  const LargeStage stage;
  const Done expected = run_with(variant("baseline"), stage);
  for (const AssignVariant& v : assign_variants()) {
    if (!v.supported) continue;
    for (const int64_t stop_after : {15, 6}) {
      SCOPED_TRACE(fmt::format("{}, stopped after {}", v.name, stop_after));
      const Done done = run_with(&v, stage, stop_after);
      expect_same_bits(done.results, expected.results);
      EXPECT_EQ(done.state.objective_history, expected.state.objective_history);
      EXPECT_EQ(done.state.centroids, expected.state.centroids);
    }
  }
}

TEST(KMeansBoundsWork, MostGroupsAreExcludedOnceCentroidsHardlyMove) {
  if (variant("avx2") == nullptr) GTEST_SKIP() << "this processor has no AVX2";
  const Use use(variant("avx2"));
  constexpr int64_t kCount = 20000, kDim = 8, kCentroids = 256;
  const std::vector<float> values = random_weight(kCount * kDim, "values");
  const SubVectors vectors{.data = values.data(), .count = kCount, .dim = kDim, .max_abs = 8.0};
  std::vector<float> centroids(values.begin(), values.begin() + kCentroids * kDim);
  const StatsLayout layout{kCentroids, kDim, 0};
  std::vector<uint16_t> codes(kCount);
  std::vector<double> stats(static_cast<size_t>(layout.size()));
  AssignBounds bounds;
  for (int step = 0; step < 15; ++step) {
    assign_parallel(vectors, 0, kCount, CentroidTable(centroids, kDim), codes.data(), stats.data(), &bounds);
    for (int64_t k = 0; k < kCentroids; ++k)
      for (int64_t t = 0; t < kDim; ++t)
        centroids[static_cast<size_t>(k * kDim + t)] +=
            static_cast<float>(stats[static_cast<size_t>(layout.residual(k) + t)] /
                               std::max(1.0, stats[static_cast<size_t>(layout.count(k))]));
  }
  EXPECT_LT(bounds.share_looked_at(), 0.35);
}

}  // namespace
}  // namespace qn::test
