// Quantization noise: which weights get it, and the representations that draw it.
#pragma once

#include <string>
#include <vector>

#include "compress/plan.h"
#include "core/config.h"
#include "quant/scalar_quantizer.h"

namespace qn {

/// Which activations are quantized: what goes into linear maps (for products of integers), what comes out of them and
/// of tables (the paper's choice), or both.
enum class Activations { none, input, output, both };
template <>
struct EnumNames<Activations> {
  static constexpr EnumName<Activations> kAll[] = {{Activations::none, "none"},
                                                   {Activations::input, "input"},
                                                   {Activations::output, "output"},
                                                   {Activations::both, "both"}};
};

/// The module's activation points that are meant by `which`, with `bits` each.
std::vector<ActivationPlan> plan_activations(const Module& module, Activations which, int64_t bits);

/// The section `quant_noise` of a configuration.
struct NoiseConfig {
  double pq = 0.0;
  int64_t block_size = 8;
  double scalar = 0.0;
  int64_t bits = 8;
  RangeMethod range = RangeMethod::tensor;
  int64_t range_updates = 100;
  int64_t scalar_block = 1;
  Activations activations = Activations::none;
  int64_t activation_bits = 8;
  std::vector<std::string> groups = {"paper"};
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// The groups with presets spelled out: paper = ffn, attn, embed, embed_proj; fairseq = ffn, embed_proj (what its code
/// really noises, reference 1.3).
std::vector<std::string> expand_groups(const std::vector<std::string>& groups);

/// Plans noise for the weights of the configured groups, those that cut ties bring included. Throws qn::Error when a
/// weight's columns are no multiple of the block size.
void plan_noise(QuantizationPlan& plan, const NoiseConfig& config);

/// Gives a dense weight the noise that is planned for it; its values are never written. Returns whether there is any.
/// Throws qn::Error for forms of noise that this program does not know.
bool apply_noise(Weight& weight, const QuantizationPlan& plan);
/// The same for all dense weights; returns the names of those that got noise.
std::vector<std::string> apply_noise(WeightSet& weights, const QuantizationPlan& plan);

}  // namespace qn
