#include "golden_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <sstream>

#include "support/tolerance.h"

namespace qn::test {
namespace {

std::vector<int64_t> parse_list(const std::string& text) {
  std::vector<int64_t> values;
  std::stringstream in(text);
  for (std::string item; std::getline(in, item, ',');) values.push_back(std::stoll(item));
  return values;
}

}  // namespace

ModelConfig golden_config(const Hdf5File& file, const std::string& group) {
  const auto integer = [&](const char* name) { return file.int_attribute(group, name); };
  ModelConfig c;
  c.layers = integer("decoder_layers");
  c.embed_dim = integer("decoder_embed_dim");
  c.ffn_dim = integer("decoder_ffn_embed_dim");
  c.heads = integer("decoder_attention_heads");
  c.input_dim = integer("decoder_input_dim");
  c.output_dim = integer("decoder_output_dim");
  c.dropout = 0.0;
  if (file.has_attribute(group, "layerdrop")) c.layerdrop = file.float_attribute(group, "layerdrop");
  c.activation = value_named<Activation>(file.string_attribute(group, "activation_fn"), "activation_fn");
  c.prenorm = integer("decoder_normalize_before") != 0;
  c.final_norm = integer("has_final_norm") != 0;
  c.learned_positions = integer("decoder_learned_pos") != 0;
  c.scale_embedding = integer("no_scale_embedding") == 0;
  c.share_input_output = integer("share_decoder_input_output_embed") != 0;
  c.adaptive.input = integer("adaptive_input") != 0;
  if (c.adaptive.input) {
    c.adaptive.cutoffs = parse_list(file.string_attribute(group, "adaptive_input_cutoff"));
    c.adaptive.factor = file.float_attribute(group, "adaptive_input_factor");
    c.adaptive.softmax = true;
    c.adaptive.tie_weights = integer("tie_adaptive_weights") != 0;
    c.adaptive.tie_projections = integer("tie_adaptive_proj") != 0;
  }
  // Position tables begin with the rows up to the padding's.
  c.max_positions = file.has_attribute(group, "max_target_positions")
                        ? integer("max_target_positions")
                        : file.shape(group + "/sinusoidal_table")[0] - (kPadId + 1);
  return c;
}

std::unique_ptr<TransformerLm> load_golden_model(const Hdf5File& file, const std::string& group, DType dtype) {
  const ModelConfig config = golden_config(file, group);
  auto model = std::make_unique<TransformerLm>(config, file.int_attribute(group, "vocab"));
  load_golden_parameters(file, group, dtype, *model);
  if (file.exists(group + "/sinusoidal_table"))
    model->positions().set_sinusoids(file.read<float>(group + "/sinusoidal_table"));
  return model;
}

void load_golden_parameters(const Hdf5File& file, const std::string& group, DType dtype, Module& module) {
  ParameterStore& store = module.parameters();
  store.allocate(dtype);
  EXPECT_EQ(store.names(), file.read_strings(group + "/param_names"));
  for (const auto& p : store.all()) {
    const std::string dataset = group + "/params/" + p->name;
    EXPECT_EQ(file.shape(dataset), p->shape) << p->name;
    const std::vector<double> values = file.read<double>(dataset);
    if (dtype == DType::f64)
      std::copy(values.begin(), values.end(), p->value.as<double>());
    else
      std::copy(values.begin(), values.end(), p->value.as<float>());
  }
}

std::vector<GoldenCase> golden_cases(const Hdf5File& file) {
  std::vector<GoldenCase> cases;
  const auto add_cases = [&](const std::string& parent) {
    if (!file.exists(parent + "model")) return;
    for (const std::string& name : file.members(parent)) {
      if (file.exists(parent + name + "/features")) cases.push_back({parent + "model", parent + name});
    }
  };
  add_cases("");
  for (const std::string& name : file.members("")) add_cases(name + "/");
  return cases;
}

Bfloat16Model bf16_tolerance(const Hdf5File& file, const std::string& group) {
  const ModelConfig config = golden_config(file, group);
  return {config.layers, config.activation == Activation::relu};
}

std::vector<int32_t> read_ids(const Hdf5File& file, const std::string& dataset) { return file.read<int32_t>(dataset); }

std::vector<double> to_doubles(const Tensor& tensor) {
  if (tensor.dtype == DType::bf16) return {tensor.span<bfloat16>().begin(), tensor.span<bfloat16>().end()};
  if (tensor.dtype == DType::f64) return {tensor.span<double>().begin(), tensor.span<double>().end()};
  return {tensor.span<float>().begin(), tensor.span<float>().end()};
}

std::unique_ptr<GoldenPass> make_pass(const Hdf5File& file, const std::string& group, DType dtype, bool recording,
                                      bool training) {
  auto pass = std::make_unique<GoldenPass>();
  PassOptions options;
  options.recording = recording;
  options.training = training;
  pass->tape = std::make_unique<Tape>(cpu_kernels(), pass->arena, dtype, options);
  pass->tokens = read_ids(file, group + "/tokens");
  pass->targets = read_ids(file, group + "/targets");
  const Shape shape = file.shape(group + "/tokens");
  pass->batch = {shape[0], shape[1], pass->tokens, pass->targets};
  return pass;
}

void run_loss(TransformerLm& model, GoldenPass& pass) {
  model.parameters().begin_gradients();
  pass.losses = to_doubles(model.losses(*pass.tape, pass.batch));
  pass.loss = 0.0;
  for (const double l : pass.losses) pass.loss += l;
  if (pass.tape->recording()) pass.tape->backward();
}

namespace {

using Doubles = std::vector<double>;

/// The softmax is shift invariant, so the key bias has gradient zero in exact arithmetic: rounding noise only.
bool zero(const Parameter& p) { return p.name.ends_with("k_proj.bias"); }

double norm(const Doubles& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

/// `matches(parameter, actual, expected)` for each gradient.
template <typename F>
void expect_each_gradient(const Hdf5File& file, const std::string& group, Module& model, const F& matches) {
  for (const auto& p : model.parameters().all()) {
    const std::string dataset = group + "/" + p->name;
    if (!file.exists(dataset)) {
      EXPECT_FALSE(p->slot.touched) << p->name << " got a gradient that the reference does not have";
      continue;
    }
    ASSERT_TRUE(p->slot.touched) << p->name << " got no gradient";
    EXPECT_TRUE(matches(*p, to_doubles(p->slot.grad), file.read<double>(dataset))) << p->name;
  }
}

}  // namespace

void expect_gradients(const Hdf5File& file, const std::string& group, Module& model, double tolerance) {
  expect_each_gradient(file, group, model, [&](const Parameter& p, const Doubles& actual, const Doubles& expected) {
    return close(actual, expected, tolerance, zero(p) ? kZeroGradientTolerance : 0.0);
  });
}

void expect_bf16_gradients(const Hdf5File& file, const std::string& group, Module& model,
                           const Bfloat16Model& tolerance) {
  expect_each_gradient(file, group, model, [&](const Parameter& p, const Doubles& actual, const Doubles& expected) {
    if (!zero(p)) return close_in_norm(actual, expected, tolerance.gradient());
    // The keys' gradients cancel in the bias but not in the weight, where each is multiplied by an input whose norm is
    // about the root of the width.
    const std::string weight = p.name.substr(0, p.name.rfind('.')) + ".weight";
    const double scale = norm(file.read<double>(group + "/" + weight)) / std::sqrt(static_cast<double>(actual.size()));
    if (norm(actual) <= tolerance.gradient() * scale) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "norm " << norm(actual) << " instead of zero; the weight's is of the order "
                                       << scale;
  });
}

}  // namespace qn::test
