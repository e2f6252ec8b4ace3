// LayerDrop against fairseq's passes, and which layers it leaves out.
#include "nn/layers/layer_drop.h"

#include <gtest/gtest.h>

#include "golden_model.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// The decoders of a file: its groups with a model that has layers of a decoder.
std::vector<std::string> decoders_of(const Hdf5File& file) {
  std::vector<std::string> groups;
  for (const std::string& group : file.members(""))
    if (file.has_attribute(group + "/model", "decoder_layers")) groups.push_back(group);
  return groups;
}

void expect_logits(TransformerLm& model, GoldenPass& pass, std::vector<double> logits) {
  const Var features = model.features(*pass.tape, pass.batch);
  const Tensor actual = model.head().log_probabilities(*pass.tape, features);
  cpu_kernels().log_softmax(view_of(logits.data(), actual.shape), view_of(logits.data(), actual.shape));
  EXPECT_TRUE(close(to_doubles(actual), logits, kForwardTolerance));
}

void check_training_pass(const Hdf5File& file, const std::string& decoder, const std::string& group) {
  SCOPED_TRACE(group);
  const auto model = load_golden_model(file, decoder + "/model", DType::f32);
  model->layer_drop().set_uniforms(file.read<double>(group + "/uniform"));
  auto forward = make_pass(file, decoder, DType::f32, false, true);
  const auto runs = file.read<int32_t>(group + "/layer_runs");
  for (size_t i = 0; i < runs.size(); ++i)
    EXPECT_EQ(model->layer_drop().runs(*forward->tape, static_cast<int64_t>(i)), runs[i] != 0) << i;
  expect_logits(*model, *forward, file.read<double>(group + "/logits"));
  auto pass = make_pass(file, decoder, DType::f32, true, true);
  run_loss(*model, *pass);
  EXPECT_TRUE(close(pass->loss, file.read<double>(group + "/loss")[0], kLossTolerance));
  expect_gradients(file, group + "/grads", *model, kGradientTolerance);
}

TEST(LayerDropGolden, LeavesOutWhatFairseqLeavesOut) {
  QN_GOLDEN(path, "layerdrop.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int passes = 0;
  for (const std::string& decoder : decoders_of(file))
    for (const std::string& name : file.members(decoder))
      if (const std::string group = decoder + "/" + name; file.exists(group + "/layer_runs")) {
        check_training_pass(file, decoder, group);
        ++passes;
      }
  EXPECT_GT(passes, 0);
}

TEST(LayerDropGolden, EvaluationUsesAllLayers) {
  QN_GOLDEN(path, "layerdrop.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& decoder : decoders_of(file)) {
    const auto model = load_golden_model(file, decoder + "/model", DType::f32);
    auto pass = make_pass(file, decoder, DType::f32, false);
    expect_logits(*model, *pass, file.read<double>(decoder + "/eval_logits"));
    run_loss(*model, *pass);
    EXPECT_TRUE(close(pass->loss, file.read<double>(decoder + "/eval_loss")[0], kLossTolerance));
  }
}

bool runs(double rate, const PassOptions& pass, int64_t layer) {
  Arena arena;
  return LayerDrop(rate).runs(Tape(cpu_kernels(), arena, DType::f32, pass), layer);
}

TEST(LayerDrop, DependsOnSeedUpdateMicroBatchAndLayer) {
  constexpr int64_t kLayers = 64;
  const PassOptions base{.training = true, .seed = 3, .update = 7, .micro_batch = 2};
  const auto pattern = [&](const PassOptions& pass) {
    std::vector<bool> result;
    for (int64_t i = 0; i < kLayers; ++i) result.push_back(runs(0.5, pass, i));
    return result;
  };
  PassOptions seed = base, update = base, micro_batch = base;
  seed.seed = 4, update.update = 8, micro_batch.micro_batch = 3;
  EXPECT_EQ(pattern(base), pattern(base));
  for (const PassOptions& other : {seed, update, micro_batch}) EXPECT_NE(pattern(base), pattern(other));
  EXPECT_NE(pattern(base), std::vector<bool>(kLayers, true));
}

TEST(LayerDrop, LeavesLayersOutAtItsRateAndInTrainingOnly) {
  for (const double rate : {0.0, 0.2, 0.8}) {
    int64_t left_out = 0;
    constexpr int64_t kPasses = 500, kLayers = 16;
    for (int64_t pass = 0; pass < kPasses; ++pass)
      for (int64_t i = 0; i < kLayers; ++i) {
        left_out += runs(rate, {.training = true, .micro_batch = static_cast<uint32_t>(pass)}, i) ? 0 : 1;
        EXPECT_TRUE(runs(rate, {.training = false, .micro_batch = static_cast<uint32_t>(pass)}, i));
      }
    EXPECT_NEAR(static_cast<double>(left_out) / (kPasses * kLayers), rate, 0.02) << rate;  // 4.5 standard deviations
  }
}

}  // namespace
}  // namespace qn::test
