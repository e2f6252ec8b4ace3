// The work of a pass against closed formulas, the measured rate of products, and what of it reaches the log and
// metrics.jsonl.
#include "train/throughput.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "support/test_comm.h"
#include "tiny_run.h"

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

/// The work of one micro-batch of `rows` blocks of these words, repeated.
PassWork work_of(const ModelConfig& config, const std::vector<int32_t>& words, int64_t rows = kRows) {
  const auto model = make_language_model(config, kVocabulary, kTime);
  model->parameters().allocate(DType::f32);
  std::vector<int32_t> ids(static_cast<size_t>(rows * kTime));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = words[i % words.size()];
  const auto fetch = [&](int64_t) { return micro_batch_of(*model, {rows, kTime, ids, ids}, rows * kTime); };
  return measure_work(*model, cpu_kernels(), DType::f32, 1, fetch);
}

/// Of a model without bands: 6 P + 6 L D (T + 1).
double closed_formula(double matrix_elements, double layers, double width, double time) {
  return 6.0 * matrix_elements + 6.0 * layers * width * (time + 1.0);
}

TEST(PassWork, OfAPlainModelIsThatOfTheClosedFormula) {
  constexpr double kAttention = 4 * 24 * 24, kFfn = 2 * 24 * 40;
  const PassWork plain = work_of(small_model(), {4, 5, 6});
  EXPECT_EQ(plain.sample_size, kRows * kTime);
  EXPECT_DOUBLE_EQ(plain.flops, kRows * kTime * closed_formula(2 * (kAttention + kFfn) + 60 * 24, 2, 24, kTime));
  ModelConfig other = small_model();
  other.input_dim = 16;
  other.output_dim = 12;
  EXPECT_DOUBLE_EQ(work_of(other, {4}, 1).flops,
                   kTime * closed_formula(24 * 16 + 2 * (kAttention + kFfn) + 24 * 12 + 60 * 12, 2, 24, kTime));
}

TEST(PassWork, OfBandsFollowsTheWords) {
  // Bands 0..19, 20..39, 40..59 of dimensions 24, 12, 6: rare words go through smaller tables and through a tail.
  constexpr double kTail = 12 * 24 + 12 * 20;  // the projection, and its 20 words
  const double common = work_of(adaptive_model(true), {4}).flops, rare = work_of(adaptive_model(true), {25}).flops;
  EXPECT_DOUBLE_EQ(rare - common, 6.0 * kRows * kTime * (12 * 24 - 24 * 24 + kTail));
  EXPECT_DOUBLE_EQ(work_of(adaptive_model(true), {4, 25}).flops, 0.5 * (common + rare));
}

TEST(PassWork, LargestProductIsTheOneMostOperationsGoInto) {
  ModelConfig config = small_model();
  config.ffn_dim = 400;
  const PassWork work = work_of(config, {4});
  EXPECT_EQ(work.product.m, kRows * kTime);
  EXPECT_EQ(work.product.n, 400);
  EXPECT_EQ(work.product.k, 24);
  EXPECT_TRUE(work.product.transpose_b);
  config.ffn_dim = 4;
  EXPECT_EQ(work_of(config, {4}).product.n, 24) << "attention's projections";
}

TEST(PassWork, IsCountedWithoutComputing) {
  const auto model = make_language_model(small_model(), kVocabulary, kTime);
  model->parameters().allocate(DType::f32);
  model->parameters().initialize(1);
  const std::vector<float> before = parameter_values(*model);
  Kernels kernels = cpu_kernels();
  kernels.matmul = [](const MatmulArgs&) { FAIL() << "a product was computed"; };
  const std::vector<int32_t> ids(kTime, 5);
  const auto fetch = [&](int64_t) { return micro_batch_of(*model, {1, kTime, ids, ids}, kTime); };
  EXPECT_GT(measure_work(*model, kernels, DType::f32, 2, fetch).flops, 0.0);
  EXPECT_EQ(parameter_values(*model), before);
}

/// A product that takes two milliseconds, whatever its size.
MatmulArgs g_asked;
void slow_matmul(const MatmulArgs& args) {
  g_asked = args;
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

TEST(Throughput, RateIsThatOfTheProduct) {
  Kernels kernels = cpu_kernels();
  kernels.matmul = slow_matmul;
  const double flops = 2.0 * 32 * 24 * 40;
  const ProductShape product{.m = 32, .n = 40, .k = 24, .transpose_a = false, .transpose_b = true};
  const double rate = measure_matmul_rate(product, kernels, DType::bf16).flops_per_second;
  EXPECT_LE(rate, 1.001 * flops / 2e-3);
  EXPECT_GE(rate, 0.1 * flops / 2e-3) << "two milliseconds became twenty";
  EXPECT_EQ(g_asked.dtype, DType::bf16);
  EXPECT_EQ(g_asked.m, 32);
  EXPECT_EQ(g_asked.n, 40);
  EXPECT_EQ(g_asked.k, 24);
  EXPECT_EQ(g_asked.ldb, 24) << "b is transposed";
}

TEST(Throughput, LargeProductsAreMeasuredBySmallerOnes) {
  Kernels kernels = cpu_kernels();
  kernels.matmul = slow_matmul;
  const MatmulRate rate = measure_matmul_rate({.m = 4096, .n = 300000, .k = 64}, kernels, DType::f32);
  EXPECT_EQ(rate.product.k, 64) << "the short side stays";
  EXPECT_LE(2.0 * static_cast<double>(rate.product.m * rate.product.n * rate.product.k), 1e9);
  EXPECT_EQ(g_asked.m, rate.product.m);
  EXPECT_EQ(g_asked.n, rate.product.n);
}

TEST(Throughput, UtilisationIsWorkOverMeasuredRate) {
  const auto comm = make_local_communicator();
  const PassWork work{.flops = 6e6, .sample_size = 300, .product = {.m = 32, .n = 40, .k = 24}};
  TrainConfig config;
  config.measure_matmul = MeasureMatmul::always;
  const Throughput measured(work, config, cpu_kernels(), DType::f32, *comm);
  ASSERT_GT(measured.matmul_rate(), 0.0);
  EXPECT_DOUBLE_EQ(measured.flops_per_sample(), 2e4);
  EXPECT_DOUBLE_EQ(measured.utilisation(1000, 0.5), 1000 * 2e4 / 0.5 / measured.matmul_rate());
  EXPECT_NE(measured.text("token").find("FLOP/s for [32, 24] x [24, 40] in fp32"), std::string::npos)
      << measured.text("token");
  config.measure_matmul = MeasureMatmul::automatic;  // this is a CPU
  const Throughput none(work, config, cpu_kernels(), DType::f32, *comm);
  EXPECT_EQ(none.matmul_rate(), 0.0);
  EXPECT_EQ(none.utilisation(1000, 0.5), 0.0);
  EXPECT_EQ(none.flops_per_sample(), measured.flops_per_sample());
  EXPECT_EQ(none.text("image").find("FLOP/s"), std::string::npos) << none.text("image");
}

TEST(Throughput, MetricsHaveThemWhereTheyWereMeasured) {
  const TempDir dir;
  prepare_tiny_corpus(dir.path());
  const auto comm = make_local_communicator();
  for (const MeasureMatmul measure : {MeasureMatmul::always, MeasureMatmul::never}) {
    RunConfig config = tiny_config(dir.path(), name_of(measure));
    config.train.max_updates = 2;
    config.train.measure_matmul = measure;
    ASSERT_EQ(TinyTrainer(config, *comm, {}).run(), Outcome::finished);
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

TEST(Throughput, MemoryIsToldByKind) {
  const auto model = make_language_model(small_model(), kVocabulary, kTime);
  model->parameters().allocate(DType::f32);
  OptimizerConfig adam;
  adam.name = OptimizerKind::adam;
  Arena arena;
  arena.allocate(size_t{3} << 20);
  arena.reset();
  const auto nag = make_optimizer({}, model->parameters(), 0.1), two = make_optimizer(adam, model->parameters(), 0.1);
  EXPECT_EQ(nag->bytes(), model->parameters().values().bytes());
  EXPECT_EQ(two->bytes(), 2 * nag->bytes());
  const std::string text = memory_text(model->parameters(), *two, nullptr, arena, cpu_kernels());
  EXPECT_NE(text.find("activations 3.00 MiB"), std::string::npos) << text;
  EXPECT_EQ(text.find("GPU"), std::string::npos) << text;
}

}  // namespace
}  // namespace qn::test
