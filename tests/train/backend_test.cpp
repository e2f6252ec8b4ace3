// Whole runs on a backend whose memory is not the host's: trained, quantized, resumed, packed and evaluated.
#include "ops/cuda/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/coded_representation.h"
#include "compress/packed_model.h"
#include "guarded_kernels.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "tasks/scoring.h"
#include "tiny_run.h"
#include "train/precision.h"

namespace qn::test {
namespace {

/// What a run leaves behind, as far as backends can be compared.
struct Results {
  std::vector<float> dense, quantized;
  std::vector<uint16_t> codes;
  double loss = 0.0, scored = 0.0, from_codes = 0.0;  ///< of the packed model: validation, evaluation
};

class Backends : public testing::Test {
 protected:
  void SetUp() override { prepare_tiny_corpus(dir_.path()); }

  /// Trains (stopping and resuming once), then quantizes the same way, and evaluates the packed file.
  Results run(const std::string& name, const Kernels& kernels) {
    Results results;
    const RunConfig dense = tiny_config(dir_.path(), name);
    train(dense, {.quantize = false, .resume = true, .stop_requested = stop_at(5), .kernels = &kernels});
    train(dense, {.quantize = false, .resume = true, .stop_requested = {}, .kernels = &kernels}, &results.dense);
    const RunConfig ipq = tiny_ipq_config(dir_.path(), name + "_ipq", dir_ / name / "checkpoint_last.h5");
    train(ipq, {.quantize = true, .resume = true, .stop_requested = stop_at(9), .kernels = &kernels});
    TinyTrainer trainer(ipq, *local_, {.quantize = true, .resume = true, .stop_requested = {}, .kernels = &kernels});
    EXPECT_EQ(trainer.run(), Outcome::finished);
    results.quantized = parameter_values(trainer.model());
    results.codes = all_codes(trainer.model());
    evaluate_packed(trainer, ipq, name, kernels, results);
    return results;
  }

 protected:
  TempDir dir_;

 private:
  void train(const RunConfig& config, const TrainerOptions& options, std::vector<float>* values = nullptr) {
    TinyTrainer trainer(config, *local_, options);
    EXPECT_EQ(trainer.run(), options.stop_requested ? Outcome::stopped : Outcome::finished);
    if (values != nullptr) *values = parameter_values(trainer.model());
  }

  void evaluate_packed(TinyTrainer& trainer, const RunConfig& config, const std::string& name, const Kernels& kernels,
                       Results& results) {
    const PackedStorage storage = packed_storage(config.ipq);
    trainer.round_weights(storage);
    results.loss = trainer.validate_now().loss;
    const auto path = dir_ / (name + ".safetensors");
    write_packed_file(path, trainer, config);
    const ModelFile file = load_model_file(path, kernels);
    const TokenStream stream = TokenStream::open(config.data.path, "valid");
    EvalOptions options;
    options.tokens_per_sample = config.data.tokens_per_sample;
    options.context_window = 4;
    results.scored = evaluate(model_of(file), kernels, *local_, stream, options).loss;
    const ModelFile coded = load_model_file(path, kernels, {}, HeldWeights::codes);
    results.from_codes = evaluate(model_of(coded), kernels, *local_, stream, options).loss;
    EXPECT_EQ(describe_coded(coded.module()).empty(), !kernels.from_codes);
  }

  std::unique_ptr<Communicator> local_ = make_local_communicator();
};

TEST_F(Backends, HostCodeNeverTouchesTensorMemory) {
  const Results plain = run("plain", cpu_kernels()), guarded = run("guarded", guarded_kernels());
  EXPECT_EQ(guarded.dense, plain.dense);
  EXPECT_EQ(guarded.quantized, plain.quantized);
  EXPECT_EQ(guarded.codes, plain.codes);
  EXPECT_EQ(guarded.loss, plain.loss);
  EXPECT_EQ(guarded.scored, plain.scored);
  EXPECT_EQ(guarded.from_codes, plain.from_codes);
  EXPECT_TRUE(close(plain.from_codes, plain.scored, kSummationTolerance));
}

TEST_F(Backends, CudaTrainsAsTheCpuDoes) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  const Results cpu = run("cpu", cpu_kernels()), cuda = run("cuda", cuda_kernels());
  EXPECT_TRUE(close(cuda.dense, cpu.dense, kTrajectoryTolerance));
  // k-means may decide near ties differently after a trajectory that differs in rounding: losses are compared.
  EXPECT_NEAR(cuda.loss, cpu.loss, 0.01 * cpu.loss);
  EXPECT_NEAR(cuda.scored, cpu.scored, 0.01 * cpu.scored);
  EXPECT_TRUE(close(cuda.from_codes, cuda.scored, kSummationTolerance));
}

TEST_F(Backends, CudaRepeatsItself) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  const Results first = run("first", cuda_kernels()), second = run("second", cuda_kernels());
  EXPECT_EQ(second.dense, first.dense);
  EXPECT_EQ(second.quantized, first.quantized);
  EXPECT_EQ(second.scored, first.scored);
}

/// A short run, without quantization.
struct ShortRun {
  std::vector<float> values;
  double loss = 0.0;
  GraphedPasses::Counts passes;
};

ShortRun short_run(const RunConfig& config, const Kernels& kernels) {
  const auto local = make_local_communicator();
  TinyTrainer trainer(config, *local, {.quantize = false, .resume = false, .stop_requested = {}, .kernels = &kernels});
  EXPECT_EQ(trainer.run(), Outcome::finished);
  const GraphedPasses* graphed = trainer.updates().graphed();
  return {parameter_values(trainer.model()), trainer.validate_now().loss,
          graphed != nullptr ? graphed->counts() : GraphedPasses::Counts{}};
}

TEST_F(Backends, SearchesForRangesOutsideTensorMemory) {
  RunConfig config = tiny_config(dir_.path(), "searched");
  config.quant_noise = {.scalar = 0.5,
                        .bits = 4,
                        .range = RangeMethod::histogram,
                        .range_updates = 2,
                        .activations = Activations::both,
                        .activation_range = RangeMethod::histogram};
  config.train.max_updates = 5;
  const ShortRun plain = short_run(config, cpu_kernels()), guarded = short_run(config, guarded_kernels());
  EXPECT_EQ(guarded.values, plain.values);
  EXPECT_EQ(guarded.loss, plain.loss);
}

TEST_F(Backends, OptimizersAndAveragesStayInTensorMemory) {
  for (const OptimizerKind optimizer : {OptimizerKind::sgd, OptimizerKind::rmsprop_tf}) {
    RunConfig config = tiny_config(dir_.path(), name_of(optimizer));
    config.optimizer.become(optimizer);
    config.optimizer.weight_decay = 1e-3;
    config.optimizer.decay = DecayedParameters::weights;
    config.schedule.lr = 0.01;
    config.train.ema = {.decay = 0.9, .warmup = true, .start_update = 1};
    config.train.max_updates = 5;
    const ShortRun plain = short_run(config, cpu_kernels()), guarded = short_run(config, guarded_kernels());
    EXPECT_EQ(guarded.values, plain.values);
    EXPECT_EQ(guarded.loss, plain.loss);
    if (cuda_device_count() == 0) continue;
    const ShortRun cuda = short_run(config, cuda_kernels());
    EXPECT_TRUE(close(cuda.values, plain.values, kTrajectoryTolerance));
    EXPECT_NEAR(cuda.loss, plain.loss, 1e-3 * plain.loss);
  }
}

TEST_F(Backends, CudaGraphsComputeWhatTheirPassesDo) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  RunConfig config = tiny_config(dir_.path(), "graphs");
  config.train.max_updates = 4;
  config.train.cuda_graphs = CudaGraphs::off;
  const ShortRun plain = short_run(config, cuda_kernels());
  EXPECT_EQ(plain.passes.launched, 0);
  config.train.cuda_graphs = CudaGraphs::on;
  const ShortRun graphed = short_run(config, cuda_kernels());
  EXPECT_EQ(graphed.passes.computed + graphed.passes.launched, config.train.max_updates * config.train.micro_batches);
  EXPECT_GE(graphed.passes.recorded, 1);
  EXPECT_GT(graphed.passes.launched, 2 * graphed.passes.recorded) << "hardly any pass was like an earlier one";
  // Rows that fill up a band take part in sums as zeros; masks and noise must be those of each micro-batch.
  EXPECT_TRUE(close(graphed.values, plain.values, kTrajectoryTolerance));
  EXPECT_NEAR(graphed.loss, plain.loss, 1e-4 * plain.loss);
}

TEST_F(Backends, CudaGraphsAreOfThePassesThatLayersWereLeftOutOf) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  RunConfig config = tiny_config(dir_.path(), "layerdrop");
  config.model.layerdrop = 0.5;
  config.train.max_updates = 6;
  config.train.cuda_graphs = CudaGraphs::off;
  const ShortRun plain = short_run(config, cuda_kernels());
  config.train.cuda_graphs = CudaGraphs::on;
  const ShortRun graphed = short_run(config, cuda_kernels());
  EXPECT_GE(graphed.passes.recorded, 2);
  EXPECT_GT(graphed.passes.launched, graphed.passes.recorded);
  EXPECT_TRUE(close(graphed.values, plain.values, kTrajectoryTolerance));
  EXPECT_NEAR(graphed.loss, plain.loss, 1e-4 * plain.loss);
}

TEST_F(Backends, CudaGraphsLeavePassesToTheHostInWhichItReads) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  RunConfig config = tiny_config(dir_.path(), "counted");
  config.quant_noise.activations = Activations::both;
  config.quant_noise.activation_range = RangeMethod::histogram;
  config.quant_noise.range_updates = 2;
  config.train.max_updates = 6;  // 0, 1, 2 and 4 are searched in
  config.train.cuda_graphs = CudaGraphs::on;
  const ShortRun graphed = short_run(config, cuda_kernels()), cpu = short_run(config, cpu_kernels());
  EXPECT_EQ(graphed.passes.computed + graphed.passes.launched, 2 * config.train.micro_batches);
  EXPECT_NEAR(graphed.loss, cpu.loss, 0.01 * cpu.loss);
}

TEST_F(Backends, CudaTrainsInHalfPrecisionWithLossScaling) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  RunConfig config = tiny_config(dir_.path(), "half");
  config.train.max_updates = 6;
  const ShortRun single = short_run(config, cpu_kernels());
  config.train.precision = Precision::fp16;
  config.train.max_updates = 2;
  config.train.loss_scale = 0x1p100;  // every gradient overflows
  const ShortRun nothing = short_run(config, cuda_kernels());
  EXPECT_GT(nothing.loss, 1.02 * single.loss);
  config.train.loss_scale = 128.0;
  config.train.max_updates = 6;
  const ShortRun half = short_run(config, cuda_kernels());
  EXPECT_NEAR(half.loss, single.loss, 0.01 * single.loss);
}

TEST_F(Backends, HalfPrecisionOnTheCpuIsAnErrorThatSaysWhatToDo) {
  RunConfig config = tiny_config(dir_.path(), "half");
  config.train.precision = Precision::fp16;
  EXPECT_THAT([&] { short_run(config, cpu_kernels()); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("fp16 is for GPUs (--device cuda)")));
}

}  // namespace
}  // namespace qn::test
