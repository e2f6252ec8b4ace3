// LayerDrop and pruning against fairseq: passes without some layers, and networks that have lost them.
#include "nn/layers/layer_drop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "golden_model.h"
#include "models/layer_selection.h"
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

/// What keeps of a group's model the layers that its pruned one has.
LayerSelection selection_of(const Hdf5File& file, const std::string& group) {
  const char* layers = file.has_attribute(group + "/model", "layers") ? "layers" : "decoder_layers";
  return {file.string_attribute(group + "/pruned", "layers_to_keep"), file.int_attribute(group + "/model", layers), 1};
}

TEST(LayerPruningGolden, GivesFairseqsNames) {
  QN_GOLDEN(path, "layerdrop.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int groups = 0;
  for (const std::string& group : file.members("")) {
    if (!file.exists(group + "/pruned")) continue;
    ++groups;
    const LayerSelection selection = selection_of(file, group);
    EXPECT_EQ(std::ssize(selection.kept()), file.int_attribute(group + "/pruned", "n_layers"));
    const auto names = file.read_strings(group + "/pruned/pruned_names"),
               sources = file.read_strings(group + "/pruned/source_names");
    size_t kept = 0;
    for (const std::string& name : file.read_strings(group + "/model/param_names")) {
      const auto place = std::find(sources.begin(), sources.end(), name);
      kept += place == sources.end() ? 0 : 1;
      EXPECT_EQ(selection.renamed(name), place == sources.end()
                                             ? std::nullopt
                                             : std::optional(names.at(static_cast<size_t>(place - sources.begin()))));
    }
    EXPECT_EQ(kept, sources.size());
  }
  EXPECT_GT(groups, 0);
}

TEST(LayerPruningGolden, PrunedModelComputesWhatFairseqsDoes) {
  QN_GOLDEN(path, "layerdrop.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& group : decoders_of(file)) {
    const LayerSelection selection = selection_of(file, group);
    ModelConfig config = golden_config(file, group + "/model");
    config.layers = std::ssize(selection.kept());
    TransformerLm pruned(config, file.int_attribute(group + "/model", "vocab"));
    pruned.allocate(DType::f32, cpu_kernels());
    pruned.positions().set_sinusoids(file.read<float>(group + "/model/sinusoidal_table"));
    for (const std::string& name : file.read_strings(group + "/model/param_names"))
      if (const auto renamed = selection.renamed(name)) {
        Parameter* parameter = pruned.parameters().find(*renamed);
        ASSERT_NE(parameter, nullptr) << *renamed;
        pruned.parameters().set_values(*parameter, file.read<float>(group + "/model/params/" + name));
      }
    auto pass = make_pass(file, group, DType::f32, false);
    expect_logits(pruned, *pass, file.read<double>(group + "/pruned/logits"));
    run_loss(pruned, *pass);
    EXPECT_TRUE(close(pass->loss, file.read<double>(group + "/pruned/loss")[0], kLossTolerance));
  }
}

using testing::HasSubstr;

TEST(LayerSelection, ListsAndEveryOther) {
  using Layers = std::vector<int64_t>;
  EXPECT_EQ(LayerSelection("4, 0,2", 6, 1).kept(), (Layers{0, 2, 4}));
  EXPECT_EQ(LayerSelection("every-other", 5, 1).kept(), (Layers{0, 2, 4}));
  EXPECT_EQ(LayerSelection("every-other", 8, 2).kept(), (Layers{0, 1, 4, 5}));
  EXPECT_EQ(LayerSelection("3,2", 6, 2).kept(), (Layers{2, 3}));
  EXPECT_EQ(LayerSelection::count("0,5"), 2);
  EXPECT_EQ(LayerSelection::count("every-other"), std::nullopt);
}

TEST(LayerSelection, RenumbersNamesOfAllKinds) {
  const LayerSelection selection("1,10", 12, 1);
  EXPECT_EQ(selection.renamed("parameters/decoder.layers.10.fc1.weight"), "parameters/decoder.layers.1.fc1.weight");
  EXPECT_EQ(selection.renamed("decoder.layers.1.fc1.input.range"), "decoder.layers.0.fc1.input.range");
  EXPECT_EQ(selection.renamed("decoder.layers.0.fc1.codes"), std::nullopt);
  EXPECT_EQ(selection.renamed("decoder.layers.11.fc1.codes"), std::nullopt);
  EXPECT_EQ(selection.renamed("decoder.embed_tokens.weight"), "decoder.embed_tokens.weight");
  EXPECT_EQ(selection.renamed("sampler/next"), "sampler/next");
}

TEST(LayerSelection, SaysWhatIsWrong) {
  const auto expect = [](const std::string& text, int64_t share, const std::string& message) {
    EXPECT_THAT([&] { LayerSelection(text, 6, share); }, testing::ThrowsMessage<UsageError>(HasSubstr(message)))
        << text;
  };
  expect("0,6", 1, "there is no layer 6, the model has layers 0 to 5");
  expect("0,2,0", 1, "layer 0 is there twice");
  expect("0,,2", 1, "'' is no number of a layer");
  expect("", 1, "'' is no number of a layer");
  expect("first", 1, "every-other");
  expect("-1", 1, "'-1' is no number");
  expect("1.5", 1, "'1.5' is no number");
  expect("99999999999999999999", 1, "is no number");
  expect("0,1,2", 2, "layers 2 to 3 have their weights in common");
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
