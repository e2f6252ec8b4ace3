// Quantization noise: where it goes, and against fairseq's outputs and gradients under stored masks.
#include "compress/noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "models/golden_seq2seq.h"
#include "support/capture.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// Noise with a given mask instead of a drawn one: dropped blocks are zero, the rest is scaled up, and the gradient is
/// the clean weight's own.
class MaskedRepresentation : public Representation {
 public:
  MaskedRepresentation(Parameter* clean, std::vector<uint8_t> dropped, double scale)
      : clean_(clean), dropped_(std::move(dropped)), scale_(scale) {}
  Var value(Tape& tape) override {
    const Tensor noisy = tape.tensor(clean_->shape);
    const auto block = static_cast<size_t>(noisy.elements()) / dropped_.size();
    const auto from = clean_->value.span<float>(), to = noisy.span<float>();
    for (size_t i = 0; i < to.size(); ++i)
      to[i] = dropped_[i / block] != 0 ? 0.0f : from[i] * static_cast<float>(scale_);
    return {noisy, clean_->var(tape).slot};
  }

 private:
  Parameter* clean_;
  std::vector<uint8_t> dropped_;
  double scale_;
};

void set_masked(Weight& weight, std::vector<uint8_t> dropped, double scale) {
  weight.set_representation(std::make_unique<MaskedRepresentation>(weight.dense(), std::move(dropped), scale),
                            weight.dense());
}

void set_values(Parameter& parameter, const std::vector<float>& values) {
  ASSERT_EQ(parameter.value.elements(), static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), parameter.value.as<float>());
}

/// A layer of the golden file: group, parameters and tape.
class GoldenLayer : public Module {
 public:
  GoldenLayer(const Hdf5File& file, std::string group) : file_(file), group_(std::move(group)) {}

  std::string at(const std::string& name) const { return group_ + "/" + name; }
  Shape shape(const std::string& name) const { return file_.shape(at(name)); }
  bool has(const std::string& name) const { return file_.exists(at(name)); }
  std::vector<float> stored(const std::string& name) const { return file_.read<float>(at(name)); }
  void expect(const Tensor& actual, const std::string& name) const {
    EXPECT_TRUE(close(to_doubles(actual), file_.read<double>(at(name)), kLayerTolerance)) << at(name);
  }
  /// Loads the weight (and the bias) and checks the clean layer; then masks the weight and checks value, result and
  /// gradient. `forward(tape)` applies the layer to the stored input.
  void check(Weight& weight, Parameter* bias, const std::function<Var(Tape&)>& forward) {
    allocate(DType::f32, cpu_kernels());
    set_values(*weight.dense(), stored("weight"));
    if (bias != nullptr) set_values(*bias, stored("bias"));
    tape.restart({});
    expect(forward(tape).value, "eval_output");
    set_masked(weight, file_.read<uint8_t>(at("block_mask")), file_.float_attribute(group_, "scale"));
    tape.restart({.training = true, .recording = true});
    expect(weight.value(tape).value, "noised_weight");
    const Var y = forward(tape);
    expect(y.value, "output");
    std::vector<float> grad = stored("grad_output");
    *y.slot = {view_of(grad.data(), y.value.shape), true};
    tape.backward();
    expect(weight.dense()->slot.grad, "grad_weight");
    EXPECT_EQ(to_doubles(weight.dense()->value), file_.read<double>(at("weight"))) << "the clean weight was written";
    if (bias != nullptr) expect(bias->slot.grad, "grad_bias");
  }

  Arena arena;
  Tape tape{cpu_kernels(), arena, DType::f32, {}};

 private:
  const Hdf5File& file_;
  std::string group_;
};

/// The layers of one kind.
std::vector<std::string> layers_of_kind(const Hdf5File& file, const std::string& kind) {
  std::vector<std::string> layers;
  for (const std::string& name : file.members(""))
    if (file.has_attribute(name, "kind") && file.string_attribute(name, "kind") == kind) layers.push_back(name);
  EXPECT_FALSE(layers.empty()) << kind;
  return layers;
}

TEST(NoiseGolden, Linear) {
  QN_GOLDEN(path, "quant_noise.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& name : layers_of_kind(file, "linear")) {
    SCOPED_TRACE(name);
    GoldenLayer golden(file, name);
    const Shape shape = golden.shape("weight");
    Linear layer;
    layer.weight = golden.root().linear("w.weight", groups::kFfn, shape[0], shape[1], {});
    if (golden.has("bias")) layer.bias = golden.root().parameter("w.bias", {shape[0]}, {});
    std::vector<float> input = golden.stored("input");
    GradientSlot slot;
    golden.check(*layer.weight, layer.bias, [&](Tape& tape) {
      slot = {};
      return layer(tape, {view_of(input.data(), {static_cast<int64_t>(input.size()) / shape[1], shape[1]}), &slot});
    });
    golden.expect(slot.grad, "grad_input");
  }
}

TEST(NoiseGolden, Embedding) {
  QN_GOLDEN(path, "quant_noise.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& name : layers_of_kind(file, "embedding")) {
    SCOPED_TRACE(name);
    GoldenLayer golden(file, name);
    const TokenEmbedding layer(golden.root(), golden.shape("weight")[0], golden.shape("weight")[1]);
    const std::vector<int32_t> ids = read_ids(file, golden.at("input"));
    golden.check(*layer.table(0), nullptr, [&](Tape& tape) { return layer.forward(tape, ids, 1.0); });
  }
}

TEST(NoiseGolden, BlocksOfConvolutions) {
  QN_GOLDEN(path, "conv_quant.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& name : file.members("noise")) {
    SCOPED_TRACE(name);
    const std::string at = "noise/" + name;
    const Shape shape = file.shape(at + "/weight");
    QuantizationPlan plan;
    plan.weights.push_back({.name = "w.weight",
                            .group = groups::kConv,
                            .rows = shape[0],
                            .cols = shape.elements() / shape[0],
                            .kernel = shape[2] * shape[3]});
    plan_noise(plan, {.pq = 0.1, .block_size = file.int_attribute(at, "block_size"), .groups = {"paper"}}, nullptr);
    EXPECT_EQ(shape.elements() / plan.weights.front().noise.block, file.shape(at + "/block_mask").elements());
  }
}

/// [batch, channels, height, width] as [batch, height, width, channels].
std::vector<float> channels_last(const std::vector<float>& values, const Shape& shape) {
  std::vector<float> moved(values.size());
  const int64_t pixels = shape[2] * shape[3];
  for (int64_t i = 0; i < shape.elements(); ++i) {
    const int64_t image = i / (shape[1] * pixels), channel = i / pixels % shape[1];
    moved[static_cast<size_t>((image * pixels + i % pixels) * shape[1] + channel)] = values[static_cast<size_t>(i)];
  }
  return moved;
}

/// A convolution of the golden file, without its bias, which ours have not: results are compared without it.
void check_convolution(const Hdf5File& file, const std::string& at) {
  GoldenLayer golden(file, at);
  const Shape in = golden.shape("input"), out = golden.shape("output"), kernel = golden.shape("weight");
  const auto images = [&](const std::string& name) { return channels_last(golden.stored(name), golden.shape(name)); };
  const auto result = [&](const std::string& name) {
    std::vector<float> values = images(name);
    if (!golden.has("bias")) return values;
    const std::vector<float> bias = golden.stored("bias");
    for (size_t i = 0; i < values.size(); ++i) values[i] -= bias[i % bias.size()];
    return values;
  };
  const auto expect = [&](const Tensor& actual, const std::vector<float>& expected, const std::string& what) {
    EXPECT_TRUE(close(to_doubles(actual), std::vector<double>(expected.begin(), expected.end()), kLayerTolerance))
        << at << what;
  };
  const int64_t stride = file.int_attribute(at, "stride");
  ConvShape shape{.batch = in[0],
                  .height = in[2],
                  .width = in[3],
                  .in = in[1],
                  .out = out[1],
                  .groups = file.int_attribute(at, "groups"),
                  .kernel_h = kernel[2],
                  .kernel_w = kernel[3],
                  .stride = stride};
  shape.pad(torch_padding(kernel[2]), torch_padding(kernel[3]));
  Weight& weight = *golden.root().weight("w.weight", groups::kConv, WeightKind::conv, kernel, {});
  golden.allocate(DType::f32, cpu_kernels());
  set_values(*weight.dense(), golden.stored("weight"));
  std::vector<float> input = images("input"), grad = images("grad_output");
  GradientSlot slot;
  const auto forward = [&](const PassOptions& options) {
    golden.tape.restart(options);
    slot = {};
    const Var x{view_of(input.data(), {in[0], in[2], in[3], in[1]}), &slot};
    return weight.conv2d(golden.tape, x, shape, {}, nullptr);
  };
  expect(forward({}).value, result("eval_output"), "/eval_output");
  set_masked(weight, file.read<uint8_t>(at + "/block_mask"), file.float_attribute(at, "scale"));
  const Var y = forward({.training = true, .recording = true});
  expect(y.value, result("output"), "/output");
  *y.slot = {view_of(grad.data(), y.value.shape), true};
  golden.tape.backward();
  golden.expect(weight.dense()->slot.grad, "grad_weight");
  expect(slot.grad, images("grad_input"), "/grad_input");
}

TEST(NoiseGolden, Convolutions) {
  QN_GOLDEN(path, "conv_quant.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string& name : file.members("noise")) check_convolution(file, "noise/" + name);
}

TEST(NoiseGolden, WholeModelStep) {
  QN_GOLDEN(path, "quant_noise.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto model = load_golden_model(file, "lm_step/model", DType::f32);
  const std::vector<std::string> masked = file.members("lm_step/masks");
  EXPECT_FALSE(masked.empty());
  for (const std::string& name : masked) {
    Weight* weight = model->weights().find(name);
    ASSERT_NE(weight, nullptr) << name;
    set_masked(*weight, file.read<uint8_t>("lm_step/masks/" + name), file.float_attribute("lm_step", "scale"));
  }
  auto pass = make_pass(file, "lm_step", DType::f32, true);
  run_loss(*model, *pass);
  EXPECT_TRUE(close(pass->loss, file.read<double>("lm_step/loss")[0], kLossTolerance));
  expect_gradients(file, "lm_step/grads", *model, kGradientTolerance);
}

TEST(NoiseGolden, WholeStepOfAnEncoderAndADecoder) {
  QN_GOLDEN(path, "seq2seq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::string group = "noise_postnorm_shared";
  const auto model = load_golden_seq2seq(file, group + "/model", DType::f32);
  // fairseq's own choice of weights is the group `fairseq`.
  QuantizationPlan plan = make_plan(default_quantize_rules(), infos_of(model->weights()));
  NoiseConfig config;
  config.pq = file.float_attribute(group, "p");
  config.groups = {"fairseq"};
  plan_noise(plan, config);
  std::vector<std::string> noisy;
  for (const WeightPlan& weight : plan.weights)
    if (weight.noise.rate > 0.0) noisy.push_back(weight.name);
  EXPECT_THAT(noisy, testing::UnorderedElementsAreArray(file.members(group + "/masks")));
  for (const std::string& name : noisy)
    set_masked(*model->weights().find(name), file.read<uint8_t>(group + "/masks/" + name),
               file.float_attribute(group, "scale"));
  const auto pass = make_pair_pass(file, group, DType::f32, {.recording = true});
  const double loss = run_pairs(*model, *pass, file.float_attribute(group, "label_smoothing"));
  EXPECT_TRUE(close(loss, file.read<double>(group + "/loss")[0], kLossTolerance));
  expect_gradients(file, group + "/grads", *model, kGradientTolerance);
}

ModelConfig adaptive_config() {
  ModelConfig c;
  c.layers = 1;
  c.embed_dim = 32;
  c.ffn_dim = 48;
  c.heads = 4;
  c.prenorm = true;
  c.adaptive = {.cutoffs = {20, 40},
                .factor = 2.0,
                .dropout = 0.0,
                .input = true,
                .softmax = true,
                .tie_weights = true,
                .tie_projections = true};
  return c;
}

ModelConfig plain_config() {
  ModelConfig c = adaptive_config();
  c.adaptive = {};
  c.share_input_output = true;
  c.noise_projection = true;
  return c;
}

std::vector<std::string> apply(Module& module, const NoiseConfig& noise) {
  QuantizationPlan plan = dense_plan(infos_of(module.weights()));
  plan_noise(plan, noise);
  return apply_noise(module.weights(), plan);
}

std::vector<std::string> noised(const ModelConfig& config, const NoiseConfig& noise) {
  const auto model = make_language_model(config, 70, 16);
  return apply(*model, noise);
}

NoiseConfig noise_on(std::vector<std::string> groups) {
  return {.pq = 0.1, .block_size = 8, .groups = std::move(groups)};
}

/// How many different numbers follow `prefix` in the names.
int64_t count_after(const std::string& prefix, const std::vector<std::string>& names) {
  std::set<int> numbers;
  for (const std::string& name : names)
    if (name.starts_with(prefix)) numbers.insert(std::stoi(name.substr(prefix.size())));
  return std::ssize(numbers);
}

/// `config` with as many layers and bands as the names show.
ModelConfig sized_by(const std::vector<std::string>& names, ModelConfig config) {
  constexpr int64_t kNarrowest = 8;  // one block of noise_on()
  config.layers = count_after("decoder.layers.", names);
  if (!config.adaptive.input) return config;
  config.adaptive.cutoffs.clear();
  config.embed_dim = kNarrowest;
  for (int64_t band = 1; band < count_after("decoder.embed_tokens.embeddings.", names); ++band) {
    config.adaptive.cutoffs.push_back(4 + band);
    config.embed_dim *= 2;
  }
  return config;
}

TEST(NoisePlacement, FairseqPresetNoisesWhatFairseqReallyDoes) {
  QN_GOLDEN(path, "quant_noise.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const auto& [name, like] : {std::pair{"lm_adaptive", adaptive_config()}, {"lm_plain", plain_config()}}) {
    const std::vector<std::string> expected =
        file.read_strings(std::string("placement/") + name + "/weights_really_noised");
    EXPECT_THAT(noised(sized_by(expected, like), noise_on({"fairseq"})), testing::UnorderedElementsAreArray(expected))
        << name;
  }
}

TEST(NoisePlacement, PaperPresetCoversAttentionAndTables) {
  const std::string bands = "decoder.embed_tokens.embeddings.", layer = "decoder.layers.0.";
  EXPECT_THAT(noised(adaptive_config(), noise_on({"paper"})),
              testing::UnorderedElementsAre(bands + "0.0.weight", bands + "0.1.weight", bands + "1.0.weight",
                                            bands + "1.1.weight", bands + "2.0.weight", bands + "2.1.weight",
                                            layer + "self_attn.q_proj.weight", layer + "self_attn.k_proj.weight",
                                            layer + "self_attn.v_proj.weight", layer + "self_attn.out_proj.weight",
                                            layer + "fc1.weight", layer + "fc2.weight"));
}

TEST(NoisePlacement, SingleGroups) {
  EXPECT_THAT(noised(plain_config(), noise_on({"embed"})), testing::ElementsAre("decoder.embed_tokens.weight"));
  ModelConfig own_output = plain_config();
  own_output.share_input_output = false;
  EXPECT_THAT(noised(own_output, noise_on({"softmax"})), testing::ElementsAre("decoder.output_projection.weight"));
  EXPECT_THAT(expand_groups({"ffn", "fairseq", "ffn"}), testing::ElementsAre("ffn", "cross_attn", "embed_proj"));
}

TEST(NoisePlacement, SaysWhereNoWeightGetsAny) {
  const auto model = make_language_model(plain_config(), 70, 16);
  const auto said = [&](const NoiseConfig& config) {
    QuantizationPlan plan = make_plan(default_quantize_rules(), infos_of(model->weights()));
    plan_noise(plan, config);
    const LogCapture log;
    warn_of_missing_noise(plan, config);
    return log.text();
  };
  EXPECT_THAT(said(noise_on({"softmax"})), testing::HasSubstr("the groups of this model are attn, embed"));
  EXPECT_THAT(said(noise_on({})), testing::HasSubstr("no weight gets noise"));
  NoiseConfig unrated;
  unrated.form = BlockNoise::exact;
  EXPECT_THAT(said(unrated), testing::HasSubstr("every rate is 0"));
  EXPECT_EQ(said(noise_on({"ffn"})), "");
  EXPECT_EQ(said({}), "");
}

TEST(NoisePlacement, WhatCutTiesBringGetsTheNoiseOfItsGroup) {
  const auto model = make_language_model(plain_config(), 70, 16);
  QuantizationPlan plan = make_plan(default_quantize_rules(), infos_of(model->weights()));
  plan_cut_ties(plan, model->weights());
  plan_noise(plan, noise_on({"softmax"}));
  EXPECT_TRUE(apply_noise(model->weights(), plan).empty());
  model->parameters().allocate(DType::f32);
  const auto own = model->weights().untie(model->parameters(), model->weights().find("decoder.embed_tokens.weight"));
  ASSERT_EQ(own.size(), 1u);
  EXPECT_TRUE(apply_noise(*own[0], plan)) << own[0]->name();
}

TEST(NoisePlacement, UnknownFormsAreNamed) {
  const auto model = make_language_model(plain_config(), 70, 16);
  QuantizationPlan plan = dense_plan(infos_of(model->weights()));
  plan.weights[0].noise = {.form = "pink", .rate = 0.1};
  EXPECT_THAT([&] { apply_noise(model->weights(), plan); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("'pink'")));
}

TEST(NoisePlacement, ZeroRateLeavesTheModelAlone) {
  NoiseConfig off = noise_on({"paper"});
  off.pq = 0.0;
  EXPECT_TRUE(noised(adaptive_config(), off).empty());
}

TEST(NoisePlacement, BlockSizeThatDoesNotDivideIsAnError) {
  NoiseConfig noise = noise_on({"paper"});
  noise.block_size = 5;
  try {
    noised(adaptive_config(), noise);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("quant_noise.block_size 5"),
                               testing::HasSubstr("32 columns of decoder."), testing::HasSubstr("quant_noise.groups")));
  }
}

TEST(NoisePlacement, TiedUsesSeeOneDraw) {
  const auto model = make_language_model(adaptive_config(), 70, 16);
  model->parameters().allocate(DType::f32);
  model->parameters().initialize(3);
  apply(*model, noise_on({"paper"}));
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {.training = true});
  for (const TiedUse& use : model->weights().ties()) {
    const void* first_use = (*use.place)->value(tape).value.data;
    EXPECT_NE(first_use, (*use.place)->dense()->value.data) << use.name << " has no noise";
    EXPECT_EQ((*use.place)->value(tape).value.data, first_use) << use.name;
  }
  // Another micro-batch draws anew.
  Weight& fc1 = *model->weights().find("decoder.layers.0.fc1.weight");
  const std::vector<double> first = to_doubles(fc1.value(tape).value);
  tape.restart({.training = true, .micro_batch = 1});
  EXPECT_NE(to_doubles(fc1.value(tape).value), first);
  tape.restart({.training = false});
  EXPECT_EQ(fc1.value(tape).value.data, fc1.dense()->value.data) << "noise outside training";
}

}  // namespace
}  // namespace qn::test
