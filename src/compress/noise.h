// Quantization noise of the product-quantization proxy: which weights get it, and the source that draws it.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "nn/weight.h"

namespace qn {

/// The section `quant_noise` of a configuration.
struct NoiseConfig {
  double pq = 0.0;
  int64_t block_size = 8;
  std::vector<std::string> groups = {"paper"};
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// The groups with presets spelled out: paper = ffn, attn, embed, embed_proj; fairseq = ffn, embed_proj (what its code
/// really noises, reference 1.3).
std::vector<std::string> expand_groups(const std::vector<std::string>& groups);

/// Gives every dense weight of the configured groups a noisy source; the master weights are never written. Returns
/// their names. Throws qn::Error when a weight's columns are no multiple of the block size.
std::vector<std::string> apply_noise(WeightSet& weights, const NoiseConfig& config);

}  // namespace qn
