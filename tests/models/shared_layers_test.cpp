// Groups of layers with weights in common: against a network of layers of their own with equal values, and against
// finite differences.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/random.h"
#include "models/transformer_lm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr int64_t kVocabulary = 40, kRows = 2, kCols = 7;

ModelConfig config_of(int64_t layers, int64_t share_layers) {
  ModelConfig c;
  c.layers = layers;
  c.share_layers = share_layers;
  c.embed_dim = c.input_dim = c.output_dim = 16;
  c.ffn_dim = 24;
  c.heads = 2;
  c.max_positions = 16;
  c.dropout = c.attention_dropout = c.activation_dropout = 0.2;
  c.prenorm = true;
  c.share_input_output = true;
  return c;
}

/// In double, with values drawn by name.
std::unique_ptr<TransformerLm> make_model(const ModelConfig& config) {
  auto model = std::make_unique<TransformerLm>(config, kVocabulary);
  model->allocate(DType::f64, cpu_kernels());
  model->parameters().initialize(5);
  return model;
}

/// "decoder.layers.3.fc1.bias" in a network whose groups have `size` layers: "decoder.layers.2.fc1.bias".
std::string stored_name(const std::string& name, int64_t size) {
  constexpr std::string_view kLayers = "decoder.layers.";
  if (!name.starts_with(kLayers)) return name;
  const size_t end = name.find('.', kLayers.size());
  const int64_t layer = std::stoll(name.substr(kLayers.size(), end - kLayers.size()));
  return fmt::format("{}{}{}", kLayers, layer - layer % size, name.substr(end));
}

/// One training pass; dropout and LayerDrop are those of the same update and micro-batch every time.
double run_pass(TransformerLm& model, bool recording, uint32_t micro_batch = 0) {
  std::vector<int32_t> tokens;
  const RandomStream stream({.seed = 9, .purpose = Purpose::test});
  for (uint64_t i = 0; i < kRows * kCols + 1; ++i)
    tokens.push_back(static_cast<int32_t>(4 + stream.u32(i) % (kVocabulary - 4)));
  const TokenBatch batch{kRows, kCols, std::span(tokens).first(kRows * kCols), std::span(tokens).subspan(1)};
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f64,
            {.training = true, .recording = recording, .seed = 3, .update = 1, .micro_batch = micro_batch});
  model.parameters().begin_gradients();
  double sum = 0.0;
  for (const double loss : model.losses(tape, batch).span<double>()) sum += loss;
  if (recording) tape.backward();
  return sum;
}

TEST(SharedLayers, AreLayersOfEqualWeightsWithDropoutOfTheirOwn) {
  const auto shared = make_model(config_of(6, 3)), own = make_model(config_of(6, 1));
  EXPECT_EQ(std::ssize(shared->parameters().all()), std::ssize(own->parameters().all()) - 4 * 16);
  for (const auto& p : own->parameters().all()) {
    const Parameter* from = shared->parameters().find(stored_name(p->name, 3));
    ASSERT_NE(from, nullptr) << p->name;
    std::copy_n(from->value.as<double>(), p->value.elements(), p->value.as<double>());
  }
  EXPECT_EQ(run_pass(*shared, true), run_pass(*own, true));
  std::map<std::string, std::vector<double>> sums;  // of the gradients of all uses
  for (const auto& p : own->parameters().all()) {
    std::vector<double>& sum = sums[stored_name(p->name, 3)];
    sum.resize(static_cast<size_t>(p->value.elements()));
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += p->slot.grad.as<double>()[i];
  }
  for (const auto& p : shared->parameters().all()) {
    const std::vector<double> gradient(p->slot.grad.as<double>(), p->slot.grad.as<double>() + p->value.elements());
    const bool zero = p->name.ends_with("k_proj.bias");  // see expect_gradients()
    EXPECT_TRUE(close(gradient, sums.at(p->name), kDoubleTolerance, zero ? kZeroGradientTolerance : 0.0)) << p->name;
  }
}

TEST(SharedLayers, GradientsAreThoseOfFiniteDifferences) {
  const auto model = make_model(config_of(4, 2));
  run_pass(*model, true);
  constexpr double kStep = 1e-6;
  for (const auto& p : model->parameters().all())
    for (const int64_t element : {int64_t{0}, p->value.elements() / 2}) {
      const double gradient = p->slot.grad.as<double>()[element];
      double& value = p->value.as<double>()[element];
      const double original = value;
      value = original + kStep;
      const double above = run_pass(*model, false);
      value = original - kStep;
      const double below = run_pass(*model, false);
      value = original;
      EXPECT_NEAR(gradient, (above - below) / (2 * kStep), 1e-5 * std::max(1.0, std::abs(gradient))) << p->name;
    }
}

/// Noise that counts how often it is drawn.
class Counting : public DenseRepresentation {
 public:
  Counting(Parameter* parameter, int& draws) : DenseRepresentation(parameter), draws_(draws) {}
  Var value(Tape& tape) override {
    ++draws_;
    return DenseRepresentation::value(tape);
  }

 private:
  int& draws_;
};

TEST(SharedLayers, NoiseIsDrawnOncePerPass) {
  const auto model = make_model(config_of(4, 4));
  Weight* weight = model->weights().find("decoder.layers.0.fc1.weight");
  ASSERT_NE(weight, nullptr);
  int draws = 0;
  weight->set_representation(std::make_unique<Counting>(weight->dense(), draws), weight->dense());
  run_pass(*model, true);
  EXPECT_EQ(draws, 1);
  run_pass(*model, true);
  EXPECT_EQ(draws, 2);
}

TEST(SharedLayers, AreLeftOutTogether) {
  ModelConfig config = config_of(6, 3);
  config.layerdrop = 0.5;
  const auto model = make_model(config);
  int runs[2] = {0, 0};
  for (uint32_t micro_batch = 0; micro_batch < 16; ++micro_batch) {
    run_pass(*model, true, micro_batch);
    for (const int group : {0, 1}) {
      const bool touched = model->parameters().find(fmt::format("decoder.layers.{}.fc1.bias", 3 * group))->slot.touched;
      runs[group] += touched ? 1 : 0;
      Arena arena;
      const Tape tape(cpu_kernels(), arena, DType::f64,
                      {.training = true, .seed = 3, .update = 1, .micro_batch = micro_batch});
      EXPECT_EQ(model->layer_drop().runs(tape, group), touched);
    }
  }
  for (const int count : runs) EXPECT_TRUE(count > 0 && count < 16) << count;
}

TEST(SharedLayers, TellWhatTheyShare) {
  const TransformerLm model(config_of(4, 2), kVocabulary);
  ASSERT_EQ(model.shared().size(), 2u);
  EXPECT_EQ(model.shared()[1].name, "decoder.layers.3");
  EXPECT_EQ(model.shared()[1].of, "decoder.layers.2");
  EXPECT_TRUE(TransformerLm(config_of(4, 1), kVocabulary).shared().empty());
  for (const auto& w : model.weights().all()) EXPECT_EQ(w->name().find("layers.1."), std::string::npos) << w->name();
}

TEST(SharedLayers, GroupsDivideTheLayers) {
  for (const int64_t size : {int64_t{0}, int64_t{4}, int64_t{12}})
    EXPECT_THAT(
        [&] { read_config<ModelConfig>(config_tree_from_text(fmt::format("share_layers: {}", size), "x.yaml")); },
        testing::ThrowsMessage<Error>(testing::HasSubstr("must divide layers = 6")));
}

}  // namespace
}  // namespace qn::test
