// Whole runs with scalar quantization: training with noise on weights and ranges of activations, stopping and resuming,
// quantizing to N bits with calibration, and the same on any number of ranks.
#include <gtest/gtest.h>

#include "compress/representation.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "tasks/model_file.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

class ScalarRun : public testing::Test {
 protected:
  RunConfig config(const std::string& name, double rate, int64_t bits) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.quant_noise = {.scalar = rate, .bits = bits, .activations = Activations::both, .groups = {"paper", "softmax"}};
    return c;
  }
  RunConfig quantize_config(const std::string& name, const std::string& from, int64_t bits) const {
    RunConfig c = tiny_config(dir_.path(), name);
    c.quant_noise = {};
    c.checkpoint.init_from = (dir_ / from / "checkpoint_last.h5").string();
    c.ipq.method = QuantizeMethod::integer;
    c.ipq.bits = bits;
    c.ipq.activations = Activations::input;
    c.ipq.calibration_batches = 10;
    return c;
  }
  static std::vector<float> ranges(const Module& module) {
    std::vector<float> all;
    for (const auto& b : module.buffers().all()) {
      const auto values = b->value.view().span<float>();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
  static std::vector<std::vector<uint16_t>> codes(const Module& module) {
    std::vector<std::vector<uint16_t>> all;
    for (const auto& w : module.weights().all())
      if (const auto tensor = quantized_tensor(*w, module.parameters())) all.push_back(tensor->codes);
    return all;
  }
  const SharedDir dir_;
  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

TEST_F(ScalarRun, ResumesBitForBitRangesIncluded) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  for (const double rate : {0.5, 1.0}) {
    const std::string name = fmt::format("{}", rate);
    TinyTrainer straight(config("straight" + name, rate, 4), *local_, {});
    straight.run();
    const RunConfig c = config("stopped" + name, rate, 4);
    TinyTrainer(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(5)}).run();
    TinyTrainer second(c, *local_, {});
    EXPECT_EQ(second.update(), 5);
    second.run();
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model()));
    EXPECT_EQ(ranges(second.model()), ranges(straight.model()));
    EXPECT_TRUE(straight.model().activations().observer()->calibrated());
    // Evaluating the checkpoint is what the trainer's validation is: everything quantized.
    const ModelFile file = load_model_file(dir_ / ("stopped" + name) / "checkpoint_last.h5");
    const Evaluation score = second.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32);
    EXPECT_EQ(score.loss, second.validate_now().loss);
  }
}

TEST_F(ScalarRun, QuantizesToTheSameRangesAndCodesOnAnyNumberOfRanks) {
  if (comm().is_root()) TinyTrainer(tiny_config(dir_.path(), "dense"), *local_, {}).run();
  comm().barrier();
  for (const int64_t bits : {8, 4}) {
    const std::string name = fmt::format("int{}", bits);
    TinyTrainer together(quantize_config(name, "dense", bits), comm(),
                         {.quantize = true, .resume = true, .stop_requested = {}});
    ASSERT_EQ(together.run(), Outcome::finished);
    TinyTrainer alone(quantize_config(fmt::format("{}_alone{}", name, comm().rank()), "dense", bits), *local_,
                      {.quantize = true, .resume = true, .stop_requested = {}});
    ASSERT_EQ(alone.run(), Outcome::finished);
    EXPECT_EQ(codes(together.model()), codes(alone.model()));
    EXPECT_EQ(codes(alone.model()).size(), alone.model().weights().all().size()) << "every weight has codes";
    EXPECT_EQ(ranges(together.model()), ranges(alone.model()));
    EXPECT_TRUE(alone.model().activations().observer()->calibrated());
  }
}

TEST_F(ScalarRun, PackedFileComputesWhatTheModelDoes) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  TinyTrainer(config("aware", 1.0, 8), *local_, {}).run();
  const RunConfig c = quantize_config("packed", "aware", 8);
  TinyTrainer trainer(c, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(trainer.run(), Outcome::finished);
  const PackedStorage storage = packed_storage(c.ipq);
  const double before = trainer.validate_now().at("ppl");
  trainer.round_weights(storage);
  const auto path = dir_ / "int8.safetensors";
  const uint64_t bytes = write_packed_file(path, trainer, c);
  EXPECT_EQ(predicted_bytes(trainer, c), bytes);
  const ModelFile packed = load_model_file(path);
  const Evaluation score = trainer.task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32);
  EXPECT_EQ(score.loss, trainer.validate_now().loss);
  EXPECT_NEAR(score.at("ppl") / before, 1.0, 0.01) << "8 bits cost next to nothing";
}

}  // namespace
}  // namespace qn::test
