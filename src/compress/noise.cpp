#include "compress/noise.h"

#include <algorithm>

#include "compress/scalar_noise.h"
#include "ops/ops.h"
#include "quant/int_quantizer.h"

namespace qn {
namespace {

/// The proxy of product quantization: blocks of columns are zero, the rest is scaled up.
class ZeroBlocks : public Representation {
 public:
  ZeroBlocks(Parameter* parameter, const WeightNoise& noise)
      : parameter_(parameter), block_(noise.block), p_(noise.rate), id_(hash_name(parameter->name.c_str())) {}
  Var value(Tape& tape) override { return block_noise(tape, parameter_->var(tape), block_, p_, id_); }

 private:
  Parameter* parameter_;
  int64_t block_;
  double p_;
  uint64_t id_;
};

constexpr const char *kZeroBlocks = "zero_blocks", *kInt = "int";

constexpr const char* kRangeUpdates = "range_updates";  // beside the quantizer's own options

std::unique_ptr<Representation> make_int_noise(Parameter* parameter, const WeightNoise& noise) {
  QuantizerOptions options = noise.options;
  ScalarNoiseOptions how{.rate = noise.rate, .block = noise.block};
  if (const auto every = options.extract(kRangeUpdates))
    how.range_updates = OptionReader(kInt, {{kRangeUpdates, every.mapped()}}).integer(kRangeUpdates);
  QN_CHECK(how.range_updates >= 1, "noise of '{}': {} = {}; at least 1 is due", parameter->name, kRangeUpdates,
           how.range_updates);
  how.grid = IntQuantizer::options_from(options);
  return make_scalar_noise(parameter, how);
}

/// Forms of noise by name.
struct Form {
  const char* name;
  std::unique_ptr<Representation> (*make)(Parameter* parameter, const WeightNoise& noise);
};
constexpr Form kForms[] = {{kZeroBlocks,
                            [](Parameter* parameter, const WeightNoise& noise) -> std::unique_ptr<Representation> {
                              return std::make_unique<ZeroBlocks>(parameter, noise);
                            }},
                           {kInt, make_int_noise}};

const Form& form_named(const std::string& name, const std::string& weight) {
  for (const Form& form : kForms)
    if (name == form.name) return form;
  fail("'{}' is planned to get noise of the form '{}', which this program does not know: use a newer quantnoise",
       weight, name);
}

}  // namespace

void NoiseConfig::visit(ConfigVisitor& v) {
  v.field("pq", pq, "probability that a block of weights is dropped in a forward pass (0: no noise)");
  v.field("block_size", block_size, "adjacent input columns that are dropped together");
  v.field("scalar", scalar,
          "probability that a weight is quantized to `bits` bits in a training pass (0: no scalar noise; 1: "
          "quantization-aware training); evaluation quantizes all of them");
  v.field("bits", bits, "scalar noise: bits per weight");
  v.choice(
      "range", range,
      "scalar noise: levels between the smallest and largest weight of the tensor; per output channel, symmetric "
      "about zero; per output channel between smallest and largest; of the tensor, with the bounds of least squared "
      "error");
  v.field("range_updates", range_updates, "range histogram: updates from one search for the bounds to the next");
  v.field("scalar_block", scalar_block, "scalar noise: adjacent input columns that are quantized together");
  v.choice("activations", activations,
           "activations that are quantized in evaluation: those that go into linear maps, that come out of them and of "
           "tables, or both. Training keeps them within the range seen so far, and rounds them too if scalar is 1");
  v.field("activation_bits", activation_bits, "bits per activation");
  v.choice("groups", groups,
           {"paper", "fairseq", groups::kFfn, groups::kAttention, groups::kEmbedding, groups::kEmbeddingProjection,
            groups::kSoftmax},
           "weights that get noise; paper = ffn, attn, embed, embed_proj; fairseq = ffn, embed_proj");
}

void NoiseConfig::validate(const ConfigChecker& c) const {
  c.check(pq >= 0.0 && pq < 1.0, "pq", "must be in [0, 1), got {}", pq);
  c.check(block_size >= 1, "block_size", "must be at least 1, got {}", block_size);
  c.check(scalar >= 0.0 && scalar <= 1.0, "scalar", "must be in [0, 1], got {}", scalar);
  c.check(scalar == 0.0 || pq == 0.0, "scalar", "and pq are two forms of noise: set one of them");
  c.check(bits >= 2 && bits <= 8, "bits", "must be 2 to 8, got {}", bits);
  c.check(range_updates >= 1, "range_updates", "must be at least 1, got {}", range_updates);
  c.check(scalar_block >= 1, "scalar_block", "must be at least 1, got {}", scalar_block);
  c.check(activation_bits >= 2 && activation_bits <= 8, "activation_bits", "must be 2 to 8, got {}", activation_bits);
}

std::vector<std::string> expand_groups(const std::vector<std::string>& names) {
  std::vector<std::string> result;
  const auto add = [&](const std::string& name) {
    if (std::find(result.begin(), result.end(), name) == result.end()) result.push_back(name);
  };
  for (const std::string& name : names) {
    if (name == "paper")
      for (const char* g : {groups::kFfn, groups::kAttention, groups::kEmbedding, groups::kEmbeddingProjection}) add(g);
    else if (name == "fairseq")
      for (const char* g : {groups::kFfn, groups::kEmbeddingProjection}) add(g);
    else
      add(name);
  }
  return result;
}

std::vector<ActivationPlan> plan_activations(const Module& module, Activations which, int64_t bits) {
  std::vector<ActivationPlan> plan;
  const bool input = which == Activations::input || which == Activations::both;
  const bool output = which == Activations::output || which == Activations::both;
  for (const auto& point : module.activations().all())
    if ((input && point->name().ends_with("input")) || (output && point->name().ends_with("output")))
      plan.push_back({point->name(), static_cast<int>(bits)});
  return plan;
}

void plan_noise(QuantizationPlan& plan, const NoiseConfig& config) {
  const std::vector<std::string> chosen = expand_groups(config.groups);
  const bool scalar = config.scalar > 0.0;
  QuantizerOptions options = IntQuantizer({static_cast<int>(config.bits), config.range}).options();
  if (config.range == RangeMethod::histogram) options[kRangeUpdates] = std::to_string(config.range_updates);
  const char* key = scalar ? "scalar_block" : "block_size";
  const WeightNoise noise = scalar ? WeightNoise{.form = kInt,
                                                 .rate = config.scalar,
                                                 .block = config.scalar_block,
                                                 .options = std::move(options)}
                                   : WeightNoise{.form = kZeroBlocks, .rate = config.pq, .block = config.block_size};
  for (WeightPlan& weight : plan.weights) {
    weight.noise = {};
    if (noise.rate <= 0.0 || std::find(chosen.begin(), chosen.end(), weight.group) == chosen.end()) continue;
    QN_CHECK(weight.cols % noise.block == 0,
             "quant_noise.{} {} does not divide the {} columns of {}: choose a divisor, or leave group '{}' out of "
             "quant_noise.groups",
             key, noise.block, weight.cols, weight.name, weight.group);
    weight.noise = noise;
  }
}

bool apply_noise(Weight& weight, const QuantizationPlan& plan) {
  const WeightPlan* planned = plan.find(weight.name());
  if (planned == nullptr || planned->noise.form.empty() || weight.dense() == nullptr) return false;
  const Form& form = form_named(planned->noise.form, weight.name());
  weight.set_representation(form.make(weight.dense(), planned->noise), weight.dense());
  return true;
}

std::vector<std::string> apply_noise(WeightSet& weights, const QuantizationPlan& plan) {
  std::vector<std::string> noised;
  for (const auto& w : weights.all())
    if (apply_noise(*w, plan)) noised.push_back(w->name());
  return noised;
}

}  // namespace qn
