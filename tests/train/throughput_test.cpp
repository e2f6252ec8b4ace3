// The figures of a run: operations per token against those that the kernels are really asked for, the measured rate of
// products, and what of it reaches the log and metrics.jsonl.
#include "train/throughput.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/counting.h"
#include "support/test_comm.h"
#include "tiny_run.h"
#include "train/update.h"

namespace qn::test {
namespace {

constexpr int64_t kVocabulary = 60, kRows = 3, kTime = 16;

ModelConfig small_model() {
  ModelConfig config;
  config.layers = 2;
  config.embed_dim = 24;
  config.ffn_dim = 40;
  config.heads = 3;
  config.prenorm = true;
  return config;
}

ModelConfig adaptive_model(bool tied) {
  ModelConfig config = small_model();
  config.adaptive.cutoffs = {20, 40};
  config.adaptive.factor = 2.0;
  config.adaptive.input = config.adaptive.softmax = true;
  config.adaptive.tie_weights = config.adaptive.tie_projections = tied;
  return config;
}

/// Operations of one update over those of the formula.
double counted_over_formula(const ModelConfig& config) {
  const auto comm = make_local_communicator();
  const auto model = make_language_model(config, kVocabulary, kTime);
  model->parameters().allocate(DType::f32);
  model->parameters().initialize(1);
  std::vector<int32_t> source(kRows * kTime);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<int32_t>(4 + i * i * 7 % (kVocabulary - 4));
  std::vector<int32_t> target = source;  // the same words in other places: bands have the same shares on both sides
  std::rotate(target.begin(), target.begin() + 1, target.end());
  std::vector<int64_t> counts(kVocabulary, 0);
  for (const int32_t id : source) ++counts[static_cast<size_t>(id)];

  UpdateRunner runner(*model, bench::counting_kernels(), *comm, {});
  const auto optimizer = make_optimizer({}, model->parameters(), 0.1);
  const auto fetch = [&](int64_t) { return MicroBatch{{kRows, kTime, source, target}, kRows * kTime}; };
  bench::take_flops();
  runner.run(0, 1, fetch, *optimizer, 0.1);
  return bench::take_flops() / (model_flops_per_token(config, kVocabulary, kTime, counts) * kRows * kTime);
}

TEST(Figures, OperationsAreThoseOfTheKernels) {
  EXPECT_DOUBLE_EQ(counted_over_formula(small_model()), 1.0);
  EXPECT_DOUBLE_EQ(counted_over_formula(adaptive_model(true)), 1.0);
  EXPECT_DOUBLE_EQ(counted_over_formula(adaptive_model(false)), 1.0);
  ModelConfig other = small_model();
  other.input_dim = 16;
  other.output_dim = 12;
  EXPECT_DOUBLE_EQ(counted_over_formula(other), 1.0);
  other.input_dim = other.output_dim = 0;
  other.share_input_output = other.noise_projection = true;
  EXPECT_DOUBLE_EQ(counted_over_formula(other), 1.0);
}

/// A product that takes two milliseconds, whatever its size.
MatmulArgs g_asked;
void slow_matmul(const MatmulArgs& args) {
  g_asked = args;
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

TEST(Figures, RateIsThatOfTheProduct) {
  Kernels kernels = cpu_kernels();
  kernels.matmul = slow_matmul;
  const double flops = 2.0 * 32 * 24 * 40;
  const double rate = measure_matmul_rate(small_model(), kernels, DType::bf16, 32);
  EXPECT_LE(rate, 1.001 * flops / 2e-3);
  EXPECT_GE(rate, 0.1 * flops / 2e-3) << "two milliseconds became twenty";
  EXPECT_EQ(g_asked.dtype, DType::bf16);
  EXPECT_EQ(g_asked.m, 32);
  EXPECT_EQ(g_asked.n * g_asked.k, 24 * 40);
}

TEST(Figures, UtilisationIsWorkOverMeasuredRate) {
  const auto comm = make_local_communicator();
  RunConfig config;
  config.model = small_model();
  config.train.measure_matmul = MeasureMatmul::always;
  const auto counts = [] { return std::vector<int64_t>(kVocabulary, 1); };
  const Throughput figures(config, kVocabulary, counts, cpu_kernels(), DType::f32, *comm);
  ASSERT_GT(figures.matmul_rate(), 0.0);
  EXPECT_DOUBLE_EQ(figures.utilisation(1000, 0.5), 1000 * figures.flops_per_token() / 0.5 / figures.matmul_rate());
  EXPECT_NE(figures.text().find("FLOP/s"), std::string::npos) << figures.text();
  config.train.measure_matmul = MeasureMatmul::automatic;  // this is a CPU
  const Throughput none(config, kVocabulary, counts, cpu_kernels(), DType::f32, *comm);
  EXPECT_EQ(none.matmul_rate(), 0.0);
  EXPECT_EQ(none.utilisation(1000, 0.5), 0.0);
  EXPECT_EQ(none.flops_per_token(), figures.flops_per_token());
  EXPECT_EQ(none.text().find("FLOP/s"), std::string::npos) << none.text();
}

TEST(Figures, MetricsHaveThemWhereTheyWereMeasured) {
  const TempDir dir;
  prepare_tiny_corpus(dir.path());
  const auto comm = make_local_communicator();
  for (const MeasureMatmul measure : {MeasureMatmul::always, MeasureMatmul::never}) {
    RunConfig config = tiny_config(dir.path(), name_of(measure));
    config.train.max_updates = 2;
    config.train.measure_matmul = measure;
    ASSERT_EQ(Trainer(config, *comm, {}).run(), Outcome::finished);
    std::ifstream metrics(std::filesystem::path(config.checkpoint.dir) / "metrics.jsonl");
    int updates = 0;
    for (std::string line; std::getline(metrics, line);) {
      const auto record = nlohmann::json::parse(line);
      if (record["kind"] != "train") continue;
      ++updates;
      EXPECT_EQ(record.contains("mfu"), measure == MeasureMatmul::always) << line;
      if (record.contains("mfu")) {
        EXPECT_GT(record["mfu"].get<double>(), 0.0) << line;
      }
    }
    EXPECT_EQ(updates, 2);
  }
}

TEST(Figures, MemoryIsToldByKind) {
  const auto model = make_language_model(small_model(), kVocabulary, kTime);
  model->parameters().allocate(DType::f32);
  OptimizerConfig adam;
  adam.name = OptimizerKind::adam;
  Arena arena;
  arena.allocate(1);
  const auto nag = make_optimizer({}, model->parameters(), 0.1), two = make_optimizer(adam, model->parameters(), 0.1);
  EXPECT_EQ(nag->bytes(), model->parameters().values().bytes());
  EXPECT_EQ(two->bytes(), 2 * nag->bytes());
  const std::string text = memory_text(model->parameters(), *two, arena, cpu_kernels());
  EXPECT_NE(text.find("activations 16.00 MiB"), std::string::npos) << text;
  EXPECT_EQ(text.find("GPU"), std::string::npos) << text;
}

}  // namespace
}  // namespace qn::test
