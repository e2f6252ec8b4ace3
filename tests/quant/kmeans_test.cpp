#include "quant/kmeans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "quant_data.h"
#include "same_bits.h"
#include "support/golden.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr double kObjectiveRounding = 1e-9;  // relative rise that float32 centroids may cause
constexpr double kMeanRounding = 1.2e-7;     // float32 centroid against its mean in double

std::vector<WeightResult> run(StageKMeans& kmeans) {
  while (kmeans.step()) {
  }
  return kmeans.finish();
}

void expect_never_rises(const std::vector<double>& objective) {
  for (size_t i = 1; i < objective.size(); ++i)
    EXPECT_LE(objective[i], objective[i - 1] * (1 + kObjectiveRounding)) << "iteration " << i;
}

/// Weights of several shapes, one of which starts with nearly all clusters empty, one has row importances and
/// one has those of rows and columns.
class Stage {
 public:
  Stage() {
    add("layers.0.fc1", 96, 128, 8, 256);
    add("layers.0.attn", 64, 64, 4, 64);
    add("conv", 20, 27, 9, 12);
    add("tiny", 3, 16, 4, 3);
    add("starved", 64, 64, 8, 32);
    problems_[4].initial_centroids.assign(32 * 8, 0.25f);
    add("frequent", 48, 40, 8, 16);
    row_importance_ = random_weight(48, "frequencies");
    for (float& w : row_importance_) w = w * w;
    problems_[5].row_importance = row_importance_;
    add("inputs", 64, 40, 8, 16);
    column_importance_ = random_weight(40, "inputs");
    for (float& h : column_importance_) h = h * h;
    problems_[6].column_importance = column_importance_;
    rows_and_columns_ = random_weight(64, "rows");
    for (float& w : rows_and_columns_) w = w * w;
    problems_[6].row_importance = rows_and_columns_;
  }
  const std::vector<KMeansProblem>& problems() const { return problems_; }
  std::span<const float> weight(size_t i) const { return weights_[i]; }

 private:
  void add(const std::string& name, int64_t rows, int64_t cols, int64_t block_size, int64_t n_centroids) {
    weights_.push_back(random_weight(rows * cols, name, 0.05));
    problems_.push_back({.name = name,
                         .weight = weights_.back().data(),
                         .rows = rows,
                         .cols = cols,
                         .block_size = block_size,
                         .n_centroids = n_centroids});
  }
  std::vector<std::vector<float>> weights_;
  std::vector<float> row_importance_, column_importance_, rows_and_columns_;
  std::vector<KMeansProblem> problems_;
};

class KMeansGolden : public testing::TestWithParam<GoldenPlace> {};
INSTANTIATE_TEST_SUITE_P(Files, KMeansGolden, testing::ValuesIn(kGoldenLayers),
                         [](const auto& place) { return place.index == 0 ? "all" : "convolutions"; });

TEST_P(KMeansGolden, FollowsFairseqStepByStep) {
  QN_GOLDEN(path, GetParam().file);
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<GoldenLayer> layers = read_golden_layers(file, GetParam().group);
  ASSERT_FALSE(layers.empty());
  const int64_t iterations = std::ssize(layers.front().objective);
  std::vector<KMeansProblem> problems;
  for (const GoldenLayer& layer : layers)
    problems.push_back({.name = layer.name,
                        .weight = layer.weight.data(),
                        .rows = layer.rows,
                        .cols = layer.cols,
                        .block_size = layer.block_size,
                        .n_centroids = layer.n_centroids,
                        .initial_centroids = layer.initial_centroids});
  StageKMeans kmeans(problems, {.iterations = iterations}, comm());
  for (bool more = true; more;) {
    more = kmeans.step();
    const auto iteration = static_cast<size_t>(kmeans.state().iteration - 1);
    for (size_t i = 0; i < layers.size(); ++i) {
      const GoldenLayer& layer = layers[i];
      SCOPED_TRACE(fmt::format("{} iteration {}", layer.name, iteration));
      ASSERT_EQ(std::ssize(layer.objective), iterations) << "the layers of a stage iterate together";
      EXPECT_TRUE(close(kmeans.state().objective_history[i].back(), layer.objective[iteration], kLayerTolerance));
      if (!file.exists(layer.name + "/centroids_iter")) continue;
      const std::vector<float> centroids = file.read<float>(layer.name + "/centroids_iter");
      EXPECT_TRUE(close(kmeans.state().centroids[i],
                        std::span(centroids).subspan(iteration * layer.centroids.size(), layer.centroids.size()),
                        kLayerTolerance));
      const std::vector<int64_t> assignments = file.read<int64_t>(layer.name + "/assignments_iter");
      const PqTable table =
          encode(layer.weight.data(), layer.rows, layer.cols, layer.block_size, kmeans.state().assigning_centroids[i]);
      EXPECT_TRUE(std::equal(table.codes.begin(), table.codes.end(),
                             assignments.begin() + static_cast<std::ptrdiff_t>(iteration * table.codes.size())));
    }
  }
  const std::vector<WeightResult> results = kmeans.finish();
  for (size_t i = 0; i < layers.size(); ++i) {
    SCOPED_TRACE(layers[i].name);
    EXPECT_EQ(kmeans.state().iteration, iterations);
    EXPECT_EQ(std::vector<int64_t>(results[i].table.codes.begin(), results[i].table.codes.end()), layers[i].codes);
    EXPECT_TRUE(close(results[i].table.centroids, layers[i].centroids, kLayerTolerance));
    EXPECT_EQ(results[i].table.counts, layers[i].counts);
    EXPECT_EQ(results[i].resolved_empty, 0);
  }
}

TEST(KMeans, ResultsAreBitwiseEqualOnAnyNumberOfRanksAndThreads) {
  const Stage stage;
  const auto local = make_local_communicator();
  StageKMeans alone(stage.problems(), {.seed = 3}, *local), together(stage.problems(), {.seed = 3}, comm());
  const std::vector<WeightResult> expected = run(alone);
  expect_same_bits(run(together), expected);
  EXPECT_EQ(alone.state().objective_history, together.state().objective_history);

  const int threads = omp_get_max_threads();
  omp_set_num_threads(threads == 3 ? 4 : 3);
  StageKMeans threaded(stage.problems(), {.seed = 3}, *local);
  expect_same_bits(run(threaded), expected);
  omp_set_num_threads(threads);
}

TEST(KMeans, ObjectiveNeverRisesAndEmptyClustersAreFilled) {
  const Stage stage;
  StageKMeans kmeans(stage.problems(), {}, comm());
  const std::vector<WeightResult> results = run(kmeans);
  for (size_t i = 0; i < results.size(); ++i) {
    SCOPED_TRACE(stage.problems()[i].name);
    ASSERT_EQ(std::ssize(kmeans.state().objective_history[i]), 15);
    expect_never_rises(kmeans.state().objective_history[i]);
    EXPECT_EQ(results[i].still_empty, 0);
    EXPECT_THAT(results[i].table.counts, testing::Each(testing::Gt(0)));
    EXPECT_NO_THROW(check_table(results[i].table, "result"));
    if (stage.problems()[i].row_importance.empty()) {
      EXPECT_TRUE(close(results[i].objective, reconstruction_error(results[i].table, stage.weight(i)), 1e-6));
    }
  }
  EXPECT_GE(results[4].resolved_empty, 31);  // 32 equal centroids: all but one start empty
}

TEST(KMeans, CentroidsAreTheMeansOfTheirBlocks) {
  const Stage stage;
  StageKMeans kmeans(stage.problems(), {}, comm());
  const WeightResult result = run(kmeans).front();
  const PqTable& table = result.table;
  std::vector<double> means(table.centroids.size(), 0.0);
  for (int64_t n = 0; n < table.blocks(); ++n) {
    const int64_t j = n / table.rows, r = n % table.rows, code = table.codes[static_cast<size_t>(n)];
    for (int64_t t = 0; t < table.block_size; ++t)
      means[static_cast<size_t>(code * table.block_size + t)] +=
          static_cast<double>(stage.problems()[0].weight[r * table.cols + j * table.block_size + t]) /
          static_cast<double>(table.counts[static_cast<size_t>(code)]);
  }
  EXPECT_TRUE(close(table.centroids, means, kMeanRounding));
}

TEST(KMeans, GoesOnBitExactlyFromItsState) {
  const Stage stage;
  StageKMeans whole(stage.problems(), {.seed = 11, .stage = 2}, comm());
  const std::vector<WeightResult> expected = run(whole);
  for (const int64_t stop_after : {1, 7, 15}) {
    KMeansState saved;
    {
      StageKMeans first(stage.problems(), {.seed = 11, .stage = 2}, comm());
      while (first.state().iteration < stop_after) first.step();
      saved = first.state();
    }
    StageKMeans second(stage.problems(), {.seed = 11, .stage = 2}, comm());
    second.restore(saved);
    expect_same_bits(run(second), expected);
    EXPECT_EQ(second.state().objective_history, whole.state().objective_history);
  }
}

TEST(KMeans, RefusesAStateOfAnotherPlan) {
  const Stage stage;
  StageKMeans kmeans(stage.problems(), {}, comm());
  kmeans.step();
  KMeansState other = kmeans.state();
  other.centroids[1].resize(8);
  EXPECT_THROW(kmeans.restore(other), Error);
  other = kmeans.state();
  other.splits.pop_back();
  EXPECT_THROW(kmeans.restore(other), Error);
  other = kmeans.state();
  other.iteration = 9;
  EXPECT_THROW(kmeans.restore(other), Error);
}

TEST(KMeans, SeedStageAndNameChooseTheStart) {
  const std::vector<float> weight = random_weight(64 * 64, "weight");
  const auto start = [&](uint64_t seed, uint32_t stage, const std::string& name) {
    const KMeansProblem problem{.name = name, .weight = weight.data(), .rows = 64, .cols = 64, .n_centroids = 16};
    return StageKMeans({problem}, {.seed = seed, .stage = stage}, comm()).state().centroids[0];
  };
  EXPECT_EQ(start(1, 0, "a"), start(1, 0, "a"));
  EXPECT_NE(start(1, 0, "a"), start(2, 0, "a"));
  EXPECT_NE(start(1, 0, "a"), start(1, 1, "a"));
  EXPECT_NE(start(1, 0, "a"), start(1, 0, "b"));
}

TEST(KMeans, InitialCentroidsAreDistinctValuesWherePossible) {
  // 20 different blocks, one of them in 9 of 10 places.
  std::vector<float> weight(1000 * 2);
  for (size_t m = 0; m < 1000; ++m) weight[2 * m] = m % 10 == 0 ? static_cast<float>(m / 10 % 20) : 3.0f;
  const KMeansProblem problem{
      .name = "w", .weight = weight.data(), .rows = 100, .cols = 20, .block_size = 2, .n_centroids = 20};
  StageKMeans kmeans({problem}, {}, comm());
  std::set<float> values;
  for (size_t k = 0; k < 20; ++k) values.insert(kmeans.state().centroids[0][2 * k]);
  EXPECT_EQ(values.size(), 20u);
  const WeightResult result = run(kmeans).front();
  EXPECT_EQ(result.objective, 0.0);
  EXPECT_EQ(result.still_empty, 0);
}

TEST(KMeans, CentroidsAreCappedAtAQuarterOfTheBlocks) {
  EXPECT_EQ(capped_centroids(4096, 256), 256);
  EXPECT_EQ(capped_centroids(1023, 256), 255);
  EXPECT_EQ(capped_centroids(2, 256), 1);
  const std::vector<float> weight = random_weight(10 * 16, "weight");
  const KMeansProblem problem{.name = "w", .weight = weight.data(), .rows = 10, .cols = 16, .block_size = 4};
  StageKMeans kmeans({problem}, {}, comm());
  EXPECT_EQ(run(kmeans).front().table.n_centroids, 10);
}

struct Degenerate {
  const char* name;
  int64_t distinct, n_centroids;
  double scale;
};

class KMeansDegenerate : public testing::TestWithParam<Degenerate> {};

TEST_P(KMeansDegenerate, EndsWithEveryBlockReproduced) {
  const auto [name, distinct, n_centroids, scale] = GetParam();
  const std::vector<float> values = random_weight(distinct * 4, name, scale);
  std::vector<float> weight;
  for (int64_t m = 0; m < 500; ++m)
    weight.insert(weight.end(), values.begin() + m % distinct * 4, values.begin() + (m % distinct + 1) * 4);
  const KMeansProblem problem{
      .name = name, .weight = weight.data(), .rows = 50, .cols = 40, .block_size = 4, .n_centroids = n_centroids};
  StageKMeans kmeans({problem}, {}, comm());
  const WeightResult result = run(kmeans).front();
  expect_never_rises(kmeans.state().objective_history[0]);
  EXPECT_EQ(result.still_empty, std::max<int64_t>(0, n_centroids - distinct));
  std::vector<float> decoded(weight.size());
  decode(result.table, decoded.data());
  EXPECT_EQ(decoded, weight);
  EXPECT_EQ(result.objective, 0.0);
}

INSTANTIATE_TEST_SUITE_P(Inputs, KMeansDegenerate,
                         testing::Values(Degenerate{"all_equal", 1, 16, 1.0}, Degenerate{"all_zero", 1, 16, 0.0},
                                         Degenerate{"five", 5, 16, 1.0}, Degenerate{"exactly_k", 16, 16, 0.01},
                                         Degenerate{"tiny", 7, 16, 1e-30}, Degenerate{"large", 7, 16, 1e9}),
                         [](const auto& test) { return test.param.name; });

TEST(KMeans, BlocksThatDifferByRoundingOnlyEnd) {
  std::vector<float> weight(400, 1.0f);
  for (size_t i = 0; i < weight.size(); i += 3) weight[i] = std::nextafter(1.0f, i % 2 == 0 ? 2.0f : 0.0f);
  const KMeansProblem problem{
      .name = "w", .weight = weight.data(), .rows = 20, .cols = 20, .block_size = 4, .n_centroids = 25};
  StageKMeans kmeans({problem}, {}, comm());
  EXPECT_LT(run(kmeans).front().objective, 1e-5);
}

TEST(KMeans, UniformImportanceChangesNothingButTheScale) {
  const std::vector<float> weight = random_weight(64 * 48, "weight"), importance(64, 4.0f);
  KMeansProblem problem{.name = "w", .weight = weight.data(), .rows = 64, .cols = 48, .n_centroids = 24};
  StageKMeans plain({problem}, {}, comm());
  problem.row_importance = importance;
  StageKMeans weighted({problem}, {}, comm());
  const WeightResult a = run(plain).front(), b = run(weighted).front();
  EXPECT_EQ(a.table.codes, b.table.codes);
  EXPECT_TRUE(close(b.table.centroids, a.table.centroids, kSummationTolerance));
  EXPECT_TRUE(close(b.objective, 2.0 * a.objective, kSummationTolerance));
}

TEST(KMeans, ImportantRowsAreReproducedBetter) {
  const std::vector<float> weight = random_weight(128 * 16, "weight");
  std::vector<float> importance(128, 1.0f);
  importance[3] = 1000.0f;
  KMeansProblem problem{
      .name = "w", .weight = weight.data(), .rows = 128, .cols = 16, .block_size = 4, .n_centroids = 16};
  const auto row_error = [&](const PqTable& table) {
    std::vector<float> decoded(weight.size());
    decode(table, decoded.data());
    double total = 0;
    for (size_t i = 3 * 16; i < 4 * 16; ++i) total += std::pow(decoded[i] - weight[i], 2);
    return total;
  };
  StageKMeans plain({problem}, {}, comm());
  problem.row_importance = importance;
  StageKMeans weighted({problem}, {}, comm());
  EXPECT_LT(row_error(run(weighted).front().table), 0.1 * row_error(run(plain).front().table));
  expect_never_rises(weighted.state().objective_history[0]);
}

TEST(KMeans, UniformColumnsChangeNothingButTheScale) {
  const std::vector<float> weight = random_weight(64 * 48, "weight"), importance(48, 4.0f);
  KMeansProblem problem{.name = "w", .weight = weight.data(), .rows = 64, .cols = 48, .n_centroids = 24};
  StageKMeans plain({problem}, {}, comm());
  problem.column_importance = importance;
  StageKMeans weighted({problem}, {}, comm());
  const WeightResult a = run(plain).front(), b = run(weighted).front();
  EXPECT_EQ(a.table.codes, b.table.codes);
  EXPECT_TRUE(close(b.table.centroids, a.table.centroids, kSummationTolerance));
  EXPECT_TRUE(close(b.objective, 2.0 * a.objective, kSummationTolerance));
}

TEST(KMeans, ImportantColumnsAreReproducedBetter) {
  constexpr int64_t kRows = 128, kCols = 16;
  const std::vector<float> weight = random_weight(kRows * kCols, "weight");
  std::vector<float> importance(kCols, 0.5f);
  for (const size_t c : {1, 6, 9}) importance[c] = 50.0f;
  importance[3] = 0.0f;
  KMeansProblem problem{
      .name = "w", .weight = weight.data(), .rows = kRows, .cols = kCols, .block_size = 4, .n_centroids = 32};
  const auto error = [&](const PqTable& table) {  // that k-means is to make small
    std::vector<float> decoded(weight.size());
    decode(table, decoded.data());
    double total = 0;
    for (size_t i = 0; i < weight.size(); ++i)
      total += importance[i % kCols] * std::pow(static_cast<double>(decoded[i]) - weight[i], 2);
    return std::sqrt(total);
  };
  StageKMeans plain({problem}, {}, comm());
  problem.column_importance = importance;
  StageKMeans weighted({problem}, {}, comm());
  const WeightResult found = run(weighted).front();
  EXPECT_LT(error(found.table), 0.8 * error(run(plain).front().table));
  EXPECT_TRUE(close(error(found.table), found.objective, kSummationTolerance));
  expect_never_rises(weighted.state().objective_history[0]);
}

TEST(KMeans, ARowOfImportanceNCountsAsNRows) {
  constexpr int64_t kRows = 32, kCols = 24;
  const std::vector<float> weight = random_weight(kRows * kCols, "weight");
  std::vector<float> importance, repeated;
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t times = 1 + r % 4;
    importance.push_back(static_cast<float>(times));
    for (int64_t i = 0; i < times; ++i)
      repeated.insert(repeated.end(), weight.begin() + r * kCols, weight.begin() + (r + 1) * kCols);
  }
  KMeansProblem problem{.name = "w",
                        .weight = weight.data(),
                        .rows = kRows,
                        .cols = kCols,
                        .n_centroids = 6,
                        .initial_centroids = random_weight(6 * 8, "start")};
  problem.row_importance = importance;
  KMeansProblem longer = problem;
  longer.weight = repeated.data();
  longer.rows = std::ssize(repeated) / kCols;
  longer.row_importance = {};
  StageKMeans weighted({problem}, {}, comm()), unrolled({longer}, {}, comm());
  const WeightResult a = run(weighted).front(), b = run(unrolled).front();
  EXPECT_TRUE(close(a.table.centroids, b.table.centroids, kSummationTolerance));
  EXPECT_TRUE(close(a.objective, b.objective, kSummationTolerance));
}

TEST(KMeans, RefusesWhatItCannotQuantize) {
  std::vector<float> weight = random_weight(64 * 64, "weight");
  const KMeansProblem good{.name = "layers.3.fc1", .weight = weight.data(), .rows = 64, .cols = 64, .n_centroids = 16};
  const auto message = [&](const KMeansProblem& problem) -> std::string {
    try {
      StageKMeans kmeans({problem}, {}, comm());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(good), "");
  KMeansProblem bad = good;
  bad.block_size = 6;
  EXPECT_THAT(message(bad), testing::HasSubstr("layers.3.fc1"));
  bad = good;
  bad.n_centroids = 70000;
  EXPECT_THAT(message(bad), testing::HasSubstr("65536"));
  bad = good;
  bad.initial_centroids.resize(3);
  EXPECT_THAT(message(bad), testing::HasSubstr("initial"));
  const std::vector<float> negative(64, -1.0f);
  bad = good;
  bad.row_importance = negative;
  EXPECT_THAT(message(bad), testing::HasSubstr("importance"));
  bad = good;
  bad.row_importance = std::span(negative).first(63);
  EXPECT_THAT(message(bad), testing::HasSubstr("63 importance weights for 64 rows"));
  // In the last element: only the last rank sees it, all must throw.
  weight.back() = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message(good), testing::HasSubstr("not finite"));
  weight.back() = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message(good), testing::HasSubstr("not finite"));
}

TEST(KMeans, FinishNeedsAnIteration) {
  const Stage stage;
  StageKMeans kmeans(stage.problems(), {}, comm());
  EXPECT_THROW(kmeans.finish(), Error);
  EXPECT_THROW(StageKMeans(stage.problems(), {.iterations = 0}, comm()), Error);
}

}  // namespace
}  // namespace qn::test
