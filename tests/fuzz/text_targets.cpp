// Texts that users write: configurations, rules of quantization.
#include "compress/foreign_rules.h"
#include "core/error.h"
#include "targets.h"
#include "tasks/run_config.h"

namespace qn::fuzz {
namespace {

/// What is accepted is written as it is understood, and accepted again.
void read_config_text(Bytes input) {
  const std::string text = text_of(input);
  const auto config = read_config<RunConfig>(config_tree_from_text(text, "config"));
  const std::string dumped = dump_config(config);
  std::string again;
  try {
    again = dump_config(read_config<RunConfig>(config_tree_from_text(dumped, "dump")));
  } catch (const Error& error) {
    throw InternalError("the dump of a configuration is refused: " + std::string(error.what()));
  }
  QN_ASSERT(again == dumped, "the dump of a configuration means something else");
}

std::vector<std::string> configs() {
  return {
      "seed: 1\nmodel: {layers: 2, embed_dim: 16, ffn_dim: 32, heads: 2, prenorm: true}\n"
      "data: {path: data, tokens_per_sample: 32, max_tokens: 128}\noptimizer: {name: adam, eps: 1.0e-08}\n"
      "schedule: {lr: 1.0e-3}\ntrain: {micro_batches: 2, max_updates: 3}\ncheckpoint: {dir: new}\n",
      "model:\n  type: roberta\n  layers: 1\n  embed_dim: 8\n  ffn_dim: 8\n  heads: 1\n  max_positions: 64\n"
      "quant_noise: {pq: .1, block_size: 8, groups: [paper]}\n"
      "ipq: {updates_per_stage: 2, kmeans_iterations: 3}\ntrain: {max_updates: 1}\n",
      "# comment\nmodel: &m\n  layers: 2\nschedule: {name: cosine, lr: 1.0e-3, warmup_updates: 4}\n"
      "train: {max_updates: 1000}\n",
  };
}

void read_rules(Bytes input) { parse_foreign_rules(text_of(input), "rules"); }

std::vector<std::string> rules() {
  return {
      "n_centroids:\n  Linear:\n    key: in_features\n    value: {\"*\": 16}\n"
      "  Embedding: {key: embedding_dim, value: {\"*\": 16}}\nblock_sizes:\n  Linear:\n    key: fuzzy_name\n"
      "    value: {fc: 8, attn: 4, emb: 4}\n  Embedding: {key: fuzzy_name, value: {emb: 8}}\n"
      "layers_to_quantize:\n  - decoder\\.layers\\.\\d+\\.fc[12]\n  - decoder\\.embed_tokens\n",
      "scalar: {bits: 4, range: channel, layers: [\".*\"]}\n",
      "layers_to_quantize: ['(?i:a|b)+?[^\\W\\d_]{2,}(?!x)$', \"\\\\.weight\"]\n",
  };
}

}  // namespace

std::vector<Target> text_targets() { return {{"config", read_config_text, configs}, {"rules", read_rules, rules}}; }

}  // namespace qn::fuzz
