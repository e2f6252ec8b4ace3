#include "compress/noise.h"

#include <algorithm>

#include "ops/ops.h"

namespace qn {
namespace {

class NoisyRepresentation : public Representation {
 public:
  NoisyRepresentation(Parameter* parameter, const NoiseConfig& config)
      : parameter_(parameter), block_(config.block_size), p_(config.pq), id_(hash_name(parameter->name.c_str())) {}
  Var value(Tape& tape) override { return block_noise(tape, parameter_->var(tape), block_, p_, id_); }

 private:
  Parameter* parameter_;
  int64_t block_;
  double p_;
  uint64_t id_;
};

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

std::vector<std::string> apply_noise(WeightSet& weights, const NoiseConfig& config) {
  std::vector<std::string> noised;
  if (config.pq <= 0.0) return noised;
  const std::vector<std::string> chosen = expand_groups(config.groups);
  for (const auto& w : weights.all()) {
    if (w->dense() == nullptr || std::find(chosen.begin(), chosen.end(), w->group()) == chosen.end()) continue;
    QN_CHECK(
        w->cols() % config.block_size == 0,
        "quant_noise.block_size {} does not divide the {} columns of {}: choose a divisor, or leave group '{}' out of "
        "quant_noise.groups",
        config.block_size, w->cols(), w->name(), w->group());
    w->set_representation(std::make_unique<NoisyRepresentation>(w->dense(), config), w->dense());
    noised.push_back(w->name());
  }
  return noised;
}

}  // namespace qn
