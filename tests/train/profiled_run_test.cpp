// Measuring changes nothing but the clock.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/profiler.h"
#include "ops/profiled_kernels.h"
#include "support/test_comm.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

struct Recording {
  std::vector<double> losses;  ///< of every update, validation and stage, as metrics.jsonl tells them
  std::vector<float> parameters;
};

Recording run(const RunConfig& config, bool quantize, const Kernels* kernels) {
  const auto local = make_local_communicator();
  TinyTrainer trainer(config, *local,
                      {.quantize = quantize, .resume = false, .stop_requested = {}, .kernels = kernels});
  EXPECT_EQ(trainer.run(), Outcome::finished);
  Recording result{.losses = {}, .parameters = parameter_values(trainer.model())};
  std::ifstream metrics(std::filesystem::path(config.checkpoint.dir) / "metrics.jsonl");
  for (std::string line; std::getline(metrics, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record["kind"] != "train" && record["kind"] != "valid" && record["kind"] != "stage") continue;
    result.losses.push_back(record[record["kind"] == "stage" ? "valid_ppl" : "loss"]);
  }
  return result;
}

class ProfiledRunTest : public testing::Test {
 protected:
  void SetUp() override { prepare_tiny_corpus(dir_.path()); }

  static PhaseTotal total(const Profiler& profiler, Phase phase) {
    return profiler.phases()[static_cast<size_t>(phase)];
  }
  static OpTotals ops(const Profiler& profiler, const std::string& name) {
    for (const OpTotals& op : profiler.ops())
      if (op.name == name) return op;
    return {};
  }

  TempDir dir_;
};

TEST_F(ProfiledRunTest, TrainsTheSameBits) {
  RunConfig config = tiny_config(dir_.path(), "plain");
  const Recording plain = run(config, false, nullptr);
  config.checkpoint.dir = (dir_ / "profiled").string();
  Profiler profiler;
  const Recording profiled = run(config, false, &profiled_kernels(cpu_kernels(), profiler));
  EXPECT_GT(plain.losses.size(), 12U);
  EXPECT_EQ(profiled.losses, plain.losses);
  EXPECT_EQ(profiled.parameters, plain.parameters);

  EXPECT_EQ(total(profiler, Phase::update).count, 12);
  // The last update of an epoch has fewer than 4 micro-batches.
  const int64_t micro_batches = total(profiler, Phase::forward).count;
  EXPECT_GT(micro_batches, 40);
  EXPECT_EQ(total(profiler, Phase::backward).count, micro_batches);
  EXPECT_EQ(total(profiler, Phase::optimizer).count, 12);
  EXPECT_EQ(total(profiler, Phase::validation).count, static_cast<int64_t>(plain.losses.size()) - 12);
  for (const Phase phase : {Phase::data, Phase::validation, Phase::checkpoint}) EXPECT_GT(total(profiler, phase).ns, 0);
  EXPECT_EQ(total(profiler, Phase::kmeans).count, 0);
  EXPECT_GT(ops(profiler, "matmul").backward.work.flops, 0.0);
  EXPECT_EQ(ops(profiler, "attention_grad").backward.calls, micro_batches * config.model.layers);
  EXPECT_EQ(ops(profiler, "nag_step").elsewhere.calls, 12);
}

TEST_F(ProfiledRunTest, QuantizesTheSameBits) {
  const RunConfig dense = tiny_config(dir_.path(), "dense");
  run(dense, false, nullptr);
  const auto from = dir_ / "dense" / "checkpoint_last.h5";
  const Recording plain = run(tiny_ipq_config(dir_.path(), "plain", from), true, nullptr);
  Profiler profiler;
  const Recording profiled =
      run(tiny_ipq_config(dir_.path(), "profiled", from), true, &profiled_kernels(cpu_kernels(), profiler));
  EXPECT_EQ(profiled.losses, plain.losses);
  EXPECT_EQ(profiled.parameters, plain.parameters);
  EXPECT_EQ(total(profiler, Phase::kmeans).count, 3);
  EXPECT_GT(total(profiler, Phase::kmeans).ns, 0);
  EXPECT_GT(ops(profiler, "pq_centroid_grad").backward.calls, 0);
}

}  // namespace
}  // namespace qn::test
