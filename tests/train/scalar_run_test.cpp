// Whole runs with scalar quantization: training with noise on weights and ranges of activations, stopping and resuming,
// quantizing to N bits with calibration, and the same on any number of ranks.
#include <gtest/gtest.h>

#include "compress/representation.h"
#include "shared_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "tiny_run.h"
#include "train/checkpoint_file.h"

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

std::vector<float> noise_state(const Module& module) {
  std::vector<float> all;
  for (const auto& w : module.weights().all()) {
    const std::vector<float> own = w->representation().state();
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

TEST_F(ScalarRun, SearchedRangesSurviveResume) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  RunConfig c = config("straight", 0.5, 4);
  c.quant_noise.range = RangeMethod::histogram;
  c.quant_noise.range_updates = 3;
  TinyTrainer straight(c, *local_, {});
  straight.run();
  EXPECT_EQ(noise_state(straight.model()).size(), 2 * straight.model().weights().all().size());
  c.checkpoint.dir = (dir_ / "stopped").string();
  TinyTrainer(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(5)}).run();
  TinyTrainer second(c, *local_, {});
  second.run();
  EXPECT_EQ(noise_state(second.model()), noise_state(straight.model()));
  EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model()));
  const ModelFile file = load_model_file(dir_ / "stopped" / "checkpoint_last.h5");
  EXPECT_EQ(second.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss,
            second.validate_now().loss);
}

TEST_F(ScalarRun, SearchedRangesOfActivationsSurviveResume) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  RunConfig c = config("straight", 1.0, 4);
  c.quant_noise.activation_range = RangeMethod::histogram;
  c.quant_noise.activation_bits = 5;
  c.quant_noise.range_updates = 3;
  TinyTrainer straight(c, *local_, {});
  straight.run();
  EXPECT_TRUE(straight.model().activations().observer()->calibrated());
  RunConfig whole = c;
  whole.quant_noise.activation_range = RangeMethod::tensor;
  whole.checkpoint.dir = (dir_ / "whole").string();
  TinyTrainer other(whole, *local_, {});
  other.run();
  EXPECT_NE(ranges(other.model()), ranges(straight.model()));
  for (const int stop : {2, 5, 6}) {  // before, at and between searches
    c.checkpoint.dir = (dir_ / fmt::format("stopped{}", stop)).string();
    TinyTrainer(c, *local_, {.quantize = false, .resume = true, .stop_requested = stop_at(stop)}).run();
    TinyTrainer second(c, *local_, {});
    second.run();
    EXPECT_EQ(ranges(second.model()), ranges(straight.model())) << stop;
    EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model())) << stop;
    const ModelFile file = load_model_file(std::filesystem::path(c.checkpoint.dir) / "checkpoint_last.h5");
    EXPECT_EQ(second.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss,
              second.validate_now().loss);
  }
}

TEST_F(ScalarRun, AllRanksSearchTheSameRangesOfActivations) {
  RunConfig c = config("together", 0.5, 4);
  c.quant_noise.activation_range = RangeMethod::histogram;
  c.quant_noise.range_updates = 3;
  c.train.micro_batches = 3;  // of four ranks, one has none
  TinyTrainer together(c, comm(), {});
  ASSERT_EQ(together.run(), Outcome::finished);
  const std::vector<float> own = ranges(together.model());
  std::vector<float> root = own;
  comm().broadcast(std::as_writable_bytes(std::span(root)));
  EXPECT_EQ(own, root);
  c.checkpoint.dir = (dir_ / fmt::format("alone{}", comm().rank())).string();
  TinyTrainer alone(c, *local_, {});
  alone.run();
  EXPECT_TRUE(close(own, ranges(alone.model()), 1e-3)) << "but for the order of sums";
}

TEST_F(ScalarRun, AllRanksSearchTheSameRanges) {
  RunConfig c = config("together", 0.5, 4);
  c.quant_noise.range = RangeMethod::histogram;
  c.quant_noise.range_updates = 3;
  c.train.micro_batches = 3;  // of four ranks, one has none
  TinyTrainer together(c, comm(), {});
  ASSERT_EQ(together.run(), Outcome::finished);
  const std::vector<float> own = noise_state(together.model());
  ASSERT_FALSE(own.empty());
  std::vector<float> root = own;
  comm().broadcast(std::as_writable_bytes(std::span(root)));
  EXPECT_EQ(own, root);
  c.checkpoint.dir = (dir_ / fmt::format("alone{}", comm().rank())).string();
  TinyTrainer alone(c, *local_, {});
  alone.run();
  EXPECT_TRUE(close(own, noise_state(alone.model()), 1e-3)) << "but for the order of sums";
}

TEST_F(ScalarRun, ProductQuantizationWithQuantizedActivations) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  TinyTrainer(tiny_config(dir_.path(), "dense"), *local_, {}).run();
  const auto pq_config = [&](const std::string& name) {
    RunConfig c = tiny_ipq_config(dir_.path(), name, dir_ / "dense" / "checkpoint_last.h5");
    c.ipq.activations = Activations::both;
    return c;
  };
  TinyTrainer straight(pq_config("straight"), *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(straight.run(), Outcome::finished);
  EXPECT_TRUE(straight.model().activations().observer()->calibrated());
  const RunConfig c = pq_config("stopped");
  for (const int stop : {9, 15}) {  // inside the finetuning of two stages
    TinyTrainer first(c, *local_, {.quantize = true, .resume = true, .stop_requested = stop_at(stop)});
    ASSERT_EQ(first.run(), Outcome::stopped);
    const ModelFile file = load_model_file(dir_ / "stopped" / "checkpoint_last.h5");
    EXPECT_EQ(first.task().evaluate_module(file.module(), cpu_kernels(), *local_, DType::f32).loss,
              first.validate_now().loss);
  }
  TinyTrainer second(c, *local_, {.quantize = true, .resume = true, .stop_requested = {}});
  ASSERT_EQ(second.run(), Outcome::finished);
  EXPECT_EQ(all_codes(second.model()), all_codes(straight.model()));
  EXPECT_EQ(parameter_values(second.model()), parameter_values(straight.model()));
  EXPECT_EQ(ranges(second.model()), ranges(straight.model()));
  second.round_weights(packed_storage(c.ipq));
  EXPECT_EQ(write_packed_file(dir_ / "pq.safetensors", second, c), predicted_bytes(second, c));
  const ModelFile packed = load_model_file(dir_ / "pq.safetensors");
  EXPECT_EQ(ranges(packed.module()), ranges(second.model()));
  EXPECT_EQ(second.task().evaluate_module(packed.module(), cpu_kernels(), *local_, DType::f32).loss,
            second.validate_now().loss);
}

TEST_F(ScalarRun, QuantizesToTheSameRangesAndCodesOnAnyNumberOfRanks) {
  if (comm().is_root()) {
    TinyTrainer(tiny_config(dir_.path(), "dense"), *local_, {}).run();
    TinyTrainer(config("aware", 1.0, 8), *local_, {}).run();
  }
  comm().barrier();
  std::vector<std::vector<float>> found;
  for (const int64_t bits : {8, 4})
    for (const RangeMethod range : {RangeMethod::tensor, RangeMethod::histogram})
      for (const char* from : {"dense", "aware"}) {  // ranges are found here, or trained
        SCOPED_TRACE(fmt::format("{} bits, {}, {}", bits, name_of(range), from));
        const auto configured = [&, bits = bits](const std::string& name) {
          RunConfig c = quantize_config(fmt::format("{}_int{}_{}_{}", name, bits, name_of(range), from), from, bits);
          c.ipq.activation_range = range;
          c.ipq.activation_bits = bits;
          return c;
        };
        TinyTrainer together(configured("together"), comm(), {.quantize = true, .resume = true, .stop_requested = {}});
        ASSERT_EQ(together.run(), Outcome::finished);
        TinyTrainer alone(configured(fmt::format("alone{}", comm().rank())), *local_,
                          {.quantize = true, .resume = true, .stop_requested = {}});
        ASSERT_EQ(alone.run(), Outcome::finished);
        EXPECT_EQ(codes(together.model()), codes(alone.model()));
        EXPECT_EQ(codes(alone.model()).size(), alone.model().weights().all().size()) << "every weight has codes";
        EXPECT_EQ(ranges(together.model()), ranges(alone.model()));
        EXPECT_TRUE(alone.model().activations().observer()->calibrated());
        found.push_back(ranges(alone.model()));
      }
  EXPECT_NE(found[0], found[2]) << "searched ranges are others";
  EXPECT_NE(found[1], found[3]) << "also where training has found ranges of the other kind";
  EXPECT_EQ(found[1], found[5]) << "trained ranges stay, whatever the bits";
  EXPECT_NE(found[2], found[6]) << "searched ranges depend on the bits";
}

/// Earlier programs had one range for q, k and v.
TEST_F(ScalarRun, CheckpointsWithOneRangeForTheProjectionsEvaluateAsBefore) {
  if (comm().size() > 1) GTEST_SKIP() << "of one rank";
  const RunConfig c = config("new", 1.0, 8);
  TinyTrainer trainer(c, *local_, {});
  trainer.run();
  StateDict state = load_state(dir_ / "new" / "checkpoint_last.h5");
  const auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    for (size_t at; (at = text.find(from)) != std::string::npos;) text.replace(at, from.size(), to);
    return text;
  };
  StateDict shared = load_state(dir_ / "new" / "checkpoint_last.h5");
  int layers = 0;
  for (const auto& [name, tensor] : load_state(dir_ / "new" / "checkpoint_last.h5").tensors) {
    const size_t at = name.find("q_proj.output.range");
    if (at == std::string::npos) continue;
    const std::string attention = name.substr(0, at);
    for (const char* other : {"q_proj", "k_proj", "v_proj"}) {
      shared.tensors[attention + other + ".output.range"] = copy_of(tensor.view());
      state.tensors.erase(attention + other + ".output.range");
    }
    state.tensors[attention + "qkv.output.range"] = copy_of(tensor.view());
    ++layers;
  }
  ASSERT_EQ(layers, 2);
  std::string& plan = state.texts["plan"];
  plan = replaced(plan, "k_proj.output", "qkv.output");
  plan = replaced(plan, "\"decoder.layers.0.self_attn.v_proj.output\":8,", "");
  plan = replaced(plan, "\"decoder.layers.0.self_attn.q_proj.output\":8,", "");
  plan = replaced(plan, "\"decoder.layers.1.self_attn.v_proj.output\":8,", "");
  plan = replaced(plan, "\"decoder.layers.1.self_attn.q_proj.output\":8,", "");
  ASSERT_EQ(plan.find("_proj.output\":8,\"decoder.layers.0.self_attn.q"), std::string::npos);
  save_state(dir_ / "old.h5", state);
  save_state(dir_ / "shared.h5", shared);
  const auto loss = [&](const char* file) {
    const ModelFile model = load_model_file(dir_ / file);
    return trainer.task().evaluate_module(model.module(), cpu_kernels(), *local_, DType::f32).loss;
  };
  EXPECT_EQ(loss("old.h5"), loss("shared.h5"));
  EXPECT_NE(loss("old.h5"), loss("new/checkpoint_last.h5"));
  // A run goes on from it, with ranges of their own.
  RunConfig on = config("resumed", 1.0, 8);
  std::filesystem::create_directory(dir_ / "resumed");
  save_state(dir_ / "resumed" / "checkpoint_last.h5", state);
  on.train.max_updates = 16;
  TinyTrainer resumed(on, *local_, {});
  EXPECT_EQ(resumed.update(), 12);
  resumed.run();
  EXPECT_TRUE(resumed.model().activations().observer()->calibrated());
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
