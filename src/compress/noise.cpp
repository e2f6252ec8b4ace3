#include "compress/noise.h"

#include <algorithm>

#include "ops/ops.h"

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

constexpr const char* kZeroBlocks = "zero_blocks";

/// Forms of noise by name.
struct Form {
  const char* name;
  std::unique_ptr<Representation> (*make)(Parameter* parameter, const WeightNoise& noise);
};
constexpr Form kForms[] = {
    {kZeroBlocks, [](Parameter* parameter, const WeightNoise& noise) -> std::unique_ptr<Representation> {
       return std::make_unique<ZeroBlocks>(parameter, noise);
     }}};

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
  v.choice("groups", groups,
           {"paper", "fairseq", groups::kFfn, groups::kAttention, groups::kEmbedding, groups::kEmbeddingProjection,
            groups::kSoftmax},
           "weights that get noise; paper = ffn, attn, embed, embed_proj; fairseq = ffn, embed_proj");
}

void NoiseConfig::validate(const ConfigChecker& c) const {
  c.check(pq >= 0.0 && pq < 1.0, "pq", "must be in [0, 1), got {}", pq);
  c.check(block_size >= 1, "block_size", "must be at least 1, got {}", block_size);
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

void plan_noise(QuantizationPlan& plan, const NoiseConfig& config) {
  const std::vector<std::string> chosen = expand_groups(config.groups);
  for (WeightPlan& weight : plan.weights) {
    weight.noise = {};
    if (config.pq <= 0.0 || std::find(chosen.begin(), chosen.end(), weight.group) == chosen.end()) continue;
    QN_CHECK(
        weight.cols % config.block_size == 0,
        "quant_noise.block_size {} does not divide the {} columns of {}: choose a divisor, or leave group '{}' out of "
        "quant_noise.groups",
        config.block_size, weight.cols, weight.name, weight.group);
    weight.noise = {.form = kZeroBlocks, .rate = config.pq, .block = config.block_size};
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
