// Quantization noise: which weights get it, and the representations that draw it.
#pragma once

#include <optional>
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

/// The module's activation points that are meant by `which`, each with everything in `how` but its name.
std::vector<ActivationPlan> plan_activations(const Module& module, Activations which, const ActivationPlan& how);

/// What blocks become under noise of product quantization.
enum class BlockNoise { zero, mean, exact };
template <>
struct EnumNames<BlockNoise> {
  static constexpr EnumName<BlockNoise> kAll[] = {
      {BlockNoise::zero, "zero"}, {BlockNoise::mean, "mean"}, {BlockNoise::exact, "exact"}};
};

/// What shares its fate under noise of product quantization.
enum class NoiseUnit { block, cluster };
template <>
struct EnumNames<NoiseUnit> {
  static constexpr EnumName<NoiseUnit> kAll[] = {{NoiseUnit::block, "block"}, {NoiseUnit::cluster, "cluster"}};
};

/// The section `quant_noise` of a configuration.
struct NoiseConfig {
  double pq = 0.0;
  BlockNoise form = BlockNoise::zero;
  NoiseUnit unit = NoiseUnit::block;
  std::optional<int64_t> block_size = {};
  std::optional<int64_t> n_centroids = {};
  int64_t codebook_updates = 25;
  int64_t codebook_iterations = 1;
  double scalar = 0.0;
  int64_t bits = 8;
  RangeMethod range = RangeMethod::tensor;
  int64_t range_updates = 100;
  int64_t scalar_block = 1;
  Activations activations = Activations::none;
  int64_t activation_bits = 8;
  RangeMethod activation_range = RangeMethod::tensor;
  std::vector<std::string> groups = {"paper"};
  std::vector<std::string> rates = {};
  double start = 0.0, end = 1.0;
  RateSchedule rate_schedule = RateSchedule::constant;

  /// Whether noise takes blocks or clusters from a product quantizer.
  bool imitates() const { return scalar == 0.0 && (form != BlockNoise::zero || unit != NoiseUnit::block); }
  NoiseSchedule schedule() const { return {.start = start, .end = end, .rate = rate_schedule}; }
  /// The rate of a group when its noise is fully on; 0: it has none.
  double rate_of(const std::string& group) const;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;

 private:
  void check_rates(const ConfigChecker& c) const;
};

/// The groups with presets spelled out: paper = ffn, attn, cross_attn, embed, embed_proj; fairseq = ffn, cross_attn,
/// embed_proj (what its code really noises, reference 1.3).
std::vector<std::string> expand_groups(const std::vector<std::string>& groups);

/// Plans noise for the weights of the configured groups, those that cut ties bring included. Noise that imitates a
/// product quantizer takes the block size and the number of centroids that the configuration leaves open from the
/// weight's quantizer: in this plan, else in `later`, that of the quantization to come; 8 and 256 where there is none.
/// Throws qn::Error when a weight's columns are no multiple of the block size.
void plan_noise(QuantizationPlan& plan, const NoiseConfig& config, const QuantizationPlan* later = nullptr);

/// Throws qn::UsageError when the noise depends on how many updates the run has, and that is not known (0).
void check_noise_schedule(const NoiseConfig& config, int64_t total_updates);

/// Warns where a configuration asks for noise and no weight of the plan gets any.
void warn_of_missing_noise(const QuantizationPlan& plan, const NoiseConfig& config);

/// Gives a dense weight the noise that is planned for it; its values are never written. Returns whether there is any.
/// Throws qn::Error for unknown forms. Those with codebooks draw nothing before RunNoise (run_noise.h) has made them.
bool apply_noise(Weight& weight, const QuantizationPlan& plan);
/// The same for all dense weights; returns the names of those that got noise.
std::vector<std::string> apply_noise(WeightSet& weights, const QuantizationPlan& plan);

}  // namespace qn
