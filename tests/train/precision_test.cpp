// Runs in bf16: they learn what fp32 learns, resume bit by bit, and keep fp32 parameters.
#include "train/precision.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "compress/packed_model.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "tasks/scoring.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

TEST(ActivationType, IsBf16WhereTheHardwareHasItOrWhenForced) {
  EXPECT_EQ(activation_type(Precision::fp32, true), DType::f32);
  EXPECT_EQ(activation_type(Precision::bf16, true), DType::bf16);
  EXPECT_EQ(activation_type(Precision::bf16, false), DType::f32);
  EXPECT_EQ(activation_type(Precision::bf16_always, false), DType::bf16);
}

TEST(ActivationType, Tf32IsFp32WithOtherProductsOnGpus) {
  EXPECT_EQ(activation_type(Precision::tf32, true), DType::f32);
  EXPECT_EQ(activation_type(Precision::tf32, false), DType::f32);
  const Memory elsewhere{"elsewhere", host_memory().allocate, host_memory().release};
  Kernels gpu = cpu_kernels();
  gpu.memory = &elsewhere;
  EXPECT_STREQ(precision_text(Precision::tf32, DType::f32, gpu), "fp32 with TF32 products");
  EXPECT_STREQ(precision_text(Precision::fp32, DType::f32, gpu), "fp32");
  EXPECT_STREQ(precision_text(Precision::tf32, DType::f32, cpu_kernels()), "fp32");
  EXPECT_STREQ(precision_text(Precision::bf16, DType::bf16, cpu_kernels()), "bf16");
}

class PrecisionTest : public testing::Test {
 protected:
  void SetUp() override { prepare_tiny_corpus(dir_.path()); }

  RunConfig config(const std::string& name, Precision precision) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.train.precision = precision;
    return c;
  }

  /// Losses of all updates as metrics.jsonl tells them.
  static std::vector<double> losses(const RunConfig& config) {
    std::vector<double> values;
    std::ifstream metrics(std::filesystem::path(config.checkpoint.dir) / "metrics.jsonl");
    for (std::string line; std::getline(metrics, line);) {
      const auto record = nlohmann::json::parse(line);
      if (record["kind"] == "train") values.push_back(record["loss"]);
    }
    return values;
  }

  TempDir dir_;
  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

TEST_F(PrecisionTest, LossCurveFollowsFp32) {
  std::vector<std::vector<double>> curves;
  for (const Precision precision : {Precision::fp32, Precision::bf16_always}) {
    RunConfig c = config(name_of(precision), precision);
    c.train.max_updates = 60;
    TinyTrainer trainer(c, *local_, {});
    EXPECT_EQ(trainer.dtype() == DType::bf16, precision == Precision::bf16_always);
    ASSERT_EQ(trainer.run(), Outcome::finished);
    curves.push_back(losses(c));
    curves.back().push_back(trainer.validate_now().base2());
  }
  ASSERT_EQ(curves[0].size(), 61U);
  EXPECT_LT(curves[0].back(), 0.95 * curves[0].front()) << "nothing was learned";
  for (size_t i = 0; i < curves[0].size(); ++i)
    EXPECT_TRUE(close(curves[1][i], curves[0][i], kBfloat16LossTolerance)) << "update " << i + 1;
  EXPECT_NE(curves[1], curves[0]);
}

TEST_F(PrecisionTest, Tf32ChangesNothingOnCpus) {
  TinyTrainer plain(config("fp32", Precision::fp32), *local_, {}), tf32(config("tf32", Precision::tf32), *local_, {});
  ASSERT_EQ(plain.run(), Outcome::finished);
  ASSERT_EQ(tf32.run(), Outcome::finished);
  EXPECT_EQ(parameter_values(tf32.model()), parameter_values(plain.model()));
}

TEST_F(PrecisionTest, ResumeIsBitExact) {
  RunConfig c = config("straight", Precision::bf16_always);
  TinyTrainer straight(c, *local_, {});
  ASSERT_EQ(straight.run(), Outcome::finished);
  for (const int stop : {1, 5, 7}) {
    c.checkpoint.dir = (dir_ / fmt::format("stopped_{}", stop)).string();
    ASSERT_EQ(TinyTrainer(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)}).run(),
              Outcome::stopped);
    TinyTrainer second(c, *local_, {});
    ASSERT_EQ(second.update(), stop);
    ASSERT_EQ(second.run(), Outcome::finished);
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model())) << stop;
  }
}

TEST_F(PrecisionTest, CheckpointsHoldFloatsThatAnyPrecisionLoads) {
  const RunConfig c = config("run", Precision::bf16_always);
  TinyTrainer trainer(c, *local_, {});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  const auto path = dir_ / "run" / "checkpoint_last.h5";
  for (const auto& [name, tensor] : load_state(path).tensors) EXPECT_NE(tensor.view().dtype, DType::bf16) << name;
  const ModelFile file = load_model_file(path);
  EXPECT_EQ(parameter_values(model_of(file)), parameter_values(trainer.model()));
  const auto score = [&](DType dtype) {
    return trainer.task().evaluate_module(file.module(), cpu_kernels(), *local_, dtype);
  };
  EXPECT_EQ(score(DType::bf16).loss, trainer.validate_now().loss);
  EXPECT_NE(score(DType::f32).loss, trainer.validate_now().loss);
  EXPECT_TRUE(close(score(DType::f32).loss, trainer.validate_now().loss, kBfloat16LossTolerance));
  const TokenStream stream = TokenStream::open(c.data.path, "test");
  const auto evaluated = [&](DType dtype) {
    return evaluate(model_of(file), cpu_kernels(), *local_, stream,
                    {.tokens_per_sample = 24, .dtype = dtype, .continues = {}})
        .loss;
  };
  EXPECT_NE(evaluated(DType::bf16), evaluated(DType::f32));
  EXPECT_TRUE(close(evaluated(DType::bf16), evaluated(DType::f32), kBfloat16LossTolerance));
}

TEST_F(PrecisionTest, PackedFileComputesWhatTheModelDoes) {
  ASSERT_EQ(TinyTrainer(config("dense", Precision::bf16_always), *local_, {}).run(), Outcome::finished);
  RunConfig c = tiny_ipq_config(dir_.path(), "ipq", dir_ / "dense" / "checkpoint_last.h5");
  c.train.precision = Precision::bf16_always;
  TinyTrainer trainer(c, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  const PackedStorage storage = packed_storage(c.ipq);
  trainer.round_weights(storage);
  const auto path = dir_ / "model.safetensors";
  write_packed_file(path, trainer, c);
  const ModelFile packed = load_model_file(path);
  const Evaluation score = trainer.task().evaluate_module(packed.module(), cpu_kernels(), *local_, trainer.dtype());
  EXPECT_EQ(score.loss, trainer.validate_now().loss);
}

}  // namespace
}  // namespace qn::test
