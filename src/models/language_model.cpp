#include "models/language_model.h"

#include "models/transformer_lm.h"

namespace qn {

namespace {
constexpr size_t kMostBands = 8;  // that assemble_rows() puts together
}

void AdaptiveConfig::visit(ConfigVisitor& v) {
  v.field("cutoffs", cutoffs, "word ids where a new frequency band starts, ascending (empty: no bands)");
  v.field("factor", factor, "each band's dimension is the previous one's divided by this");
  v.field("dropout", dropout, "dropout on the features and inside the tails of the adaptive softmax");
  v.field("input", input, "adaptive input: one table and projection per band instead of one table");
  v.field("softmax", softmax, "adaptive softmax instead of a plain one");
  v.field("tie_weights", tie_weights, "the band tables are the output matrices as well");
  v.field("tie_projections", tie_projections, "the band projections are shared as well");
}

void AdaptiveConfig::validate(const ConfigChecker& c) const {
  int64_t previous = 0;
  for (const int64_t cutoff : cutoffs) {
    c.check(cutoff > previous, "cutoffs", "must be positive and ascend; {} follows {}", cutoff, previous);
    previous = cutoff;
  }
  c.check(factor >= 1.0, "factor", "must be at least 1, got {}", factor);
  c.check(dropout >= 0.0 && dropout < 1.0, "dropout", "must be in [0, 1), got {}", dropout);
  c.check(cutoffs.size() < kMostBands, "cutoffs", "{} cutoffs give {} bands; at most {} are possible", cutoffs.size(),
          cutoffs.size() + 1, kMostBands);
  c.check(cutoffs.empty() == !(input || softmax), "cutoffs", "{}",
          cutoffs.empty() ? "are needed by adaptive input and softmax"
                          : "are given, but neither input nor softmax is adaptive");
  c.check(!(tie_weights || tie_projections) || (input && softmax), "tie_weights",
          "needs both adaptive input and adaptive softmax");
  c.check(!tie_projections || tie_weights, "tie_projections", "needs tie_weights");
}

void ModelConfig::visit(ConfigVisitor& v) {
  v.choice("type", type, "architecture");
  v.field("layers", layers, "Transformer blocks");
  v.field("embed_dim", embed_dim, "width of the residual stream");
  v.field("ffn_dim", ffn_dim, "hidden width of the feed-forward blocks");
  v.field("heads", heads, "attention heads");
  v.field("input_dim", input_dim, "dimension of the token table (0: embed_dim)");
  v.field("output_dim", output_dim, "dimension of the features before the softmax (0: embed_dim)");
  v.field("max_positions", max_positions, "longest sequence (0: data.tokens_per_sample)");
  v.field("dropout", dropout, "dropout after embeddings, attention and feed-forward");
  v.field("attention_dropout", attention_dropout, "dropout on attention probabilities");
  v.field("activation_dropout", activation_dropout, "dropout inside the feed-forward block (fairseq: relu_dropout)");
  v.choice("activation", activation, "feed-forward activation (gelu: exact, with erf)");
  v.field("prenorm", prenorm, "LayerNorm before each sub-block instead of after the residual sum");
  v.field("final_norm", final_norm, "LayerNorm after the last block (with prenorm)");
  v.field("learned_positions", learned_positions, "a learned table instead of sinusoids");
  v.field("scale_embedding", scale_embedding, "multiply embeddings by sqrt(embed_dim)");
  v.field("share_input_output", share_input_output, "the token table is the output matrix as well (plain softmax)");
  v.field("noise_projection", noise_projection,
          "the extra embed_dim x embed_dim layer that fairseq adds after a plain embedding when it trains with noise");
  v.field("layerdrop", layerdrop,
          "probability that a block is left out of a training pass, so that the trained model can do with fewer "
          "(LayerDrop); with share_layers groups of blocks are left out as a whole");
  v.field("share_layers", share_layers, "groups of so many adjacent blocks have their weights in common (1: none do)");
  v.section("adaptive", adaptive, "frequency bands");
}

void ModelConfig::validate(const ConfigChecker& c) const {
  const auto within = [&](const char* key, int64_t value, int64_t least, int64_t most) {
    c.check(value >= least && value <= most, key, "must be in {} to {}, got {}", least, most, value);
  };
  within("layers", layers, 1, kMostLayers);
  within("embed_dim", embed_dim, 4, kMostWidth);
  c.check(embed_dim % 2 == 0, "embed_dim", "must be even, got {}", embed_dim);
  within("ffn_dim", ffn_dim, 1, kMostWidth);
  within("input_dim", input_dim, 0, kMostWidth);
  within("output_dim", output_dim, 0, kMostWidth);
  within("max_positions", max_positions, 0, kMostPositions);
  c.check(heads >= 1 && embed_dim % heads == 0, "heads", "must divide embed_dim = {}, got {}", embed_dim, heads);
  for (const auto& [name, p] : {std::pair{"dropout", dropout},
                                {"attention_dropout", attention_dropout},
                                {"activation_dropout", activation_dropout},
                                {"layerdrop", layerdrop}})
    c.check(p >= 0.0 && p < 1.0, name, "must be in [0, 1), got {}", p);
  c.check(share_layers >= 1 && layers % share_layers == 0, "share_layers", "must divide layers = {}, got {}", layers,
          share_layers);
  c.check(!final_norm || prenorm, "final_norm", "exists only together with prenorm");
  c.check(!(share_input_output && (adaptive.input || adaptive.softmax)), "share_input_output",
          "is for the plain softmax; adaptive models use adaptive.tie_weights");
  c.check(!(noise_projection && adaptive.input), "noise_projection", "exists only without adaptive input");
}

std::unique_ptr<LanguageModel> make_language_model(const ModelConfig& config, int64_t vocabulary,
                                                   int64_t default_positions) {
  ModelConfig resolved = config;
  if (resolved.max_positions == 0) resolved.max_positions = default_positions;
  if (resolved.input_dim == 0) resolved.input_dim = resolved.embed_dim;
  if (resolved.output_dim == 0) resolved.output_dim = resolved.embed_dim;
  return std::make_unique<TransformerLm>(resolved, vocabulary);
}

}  // namespace qn
