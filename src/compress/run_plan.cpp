#include "compress/run_plan.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "compress/fairseq_config.h"
#include "core/error.h"
#include "quant/int_quantizer.h"

namespace qn {
namespace {

/// The one quantizer of all weights; null where rules choose.
std::shared_ptr<const Quantizer> only_quantizer(const IpqConfig& config) {
  if (!config.quantizer.empty()) return quantizer_from_text(config.quantizer, "ipq.quantizer");
  if (config.method == QuantizeMethod::pq) return nullptr;
  return std::make_shared<IntQuantizer>(ScalarOptions{static_cast<int>(config.bits), config.range});
}

/// Most is lost by the token tables, so that what comes after them gets used to their codes: with the same updates the
/// model ends better than in fairseq's order (docs/results.md).
void tables_first(QuantizeRules& rules) {
  constexpr ptrdiff_t kTables = 1;
  std::rotate(rules.stages.begin(), rules.stages.begin() + kTables, rules.stages.begin() + kTables + 1);
}

QuantizeRules rules_of(const IpqConfig& config, std::span<const WeightInfo> weights) {
  if (auto quantizer = only_quantizer(config)) {
    QuantizeRules rules;
    rules.quantizer = std::move(quantizer);
    for (const std::string& pattern : config.stages) rules.stages.push_back({pattern, "ipq.stages"});
    if (rules.stages.empty()) rules.stages.push_back({R"((?!.*embed_positions$).)", ""});
    return rules;
  }
  const bool images = std::any_of(weights.begin(), weights.end(),
                                  [](const WeightInfo& weight) { return weight.kind == WeightKind::conv; });
  QuantizeRules rules = !config.rules.empty() ? read_quantize_rules(config.rules)
                        : images              ? default_image_rules(weights)
                                              : default_quantize_rules();
  for (const std::string& pattern : config.row_scales) rules.row_scales.push_back({pattern, "ipq.row_scales"});
  if (config.stages.empty() && config.rules.empty() && !config.updates_per_stage && !images) tables_first(rules);
  if (config.stages.empty()) return rules;
  rules.stages.clear();
  for (const std::string& pattern : config.stages) rules.stages.push_back({pattern, "ipq.stages"});
  return rules;
}

/// Groups and kernels are not part of a plan's text.
void restore_groups(QuantizationPlan& plan, const WeightSet& weights) {
  for (WeightPlan& planned : plan.weights) {
    if (const Weight* weight = weights.find(planned.name)) {
      planned.group = weight->group();
      planned.kernel = kernel_pixels(*weight);
    }
    for (const TiedUse& use : weights.ties())
      if (use.name == planned.name) planned.group = use.group;
  }
}

std::vector<std::string> differences_from(const IpqConfig& ipq, const QuantizationPlan& stored, const Module& module) {
  try {
    return quantization_differences(stored, make_run_plan(module, {}, &ipq));
  } catch (const Error& error) {  // the file of rules may be gone
    spdlog::warn("the run goes on with the plan it was started with; its rules give none by now: {}", error.what());
    return {};
  }
}

/// Codes that are there cannot be made by other rules any more, and half a run by each is what nobody asked for.
void compare_with_config(const QuantizationPlan& stored, const Module& module, const IpqConfig& ipq) {
  constexpr size_t kListed = 6;
  std::vector<std::string> lines = differences_from(ipq, stored, module);
  const size_t all = lines.size();
  lines.resize(std::min(all, kListed));
  if (all > kListed) lines.push_back(fmt::format("and {} more", all - kListed));
  QN_CHECK(
      lines.empty(),
      "the rules have changed since this run was started ({}ipq.*):\n  {}\nResume it with the old rules, start anew "
      "with --fresh, or use another checkpoint.dir",
      ipq.rules.empty() ? "" : ipq.rules + ", ", fmt::join(lines, "\n  "));
}

/// What `quantize` will do to the module; nothing where its rules are not for it, which noise that leaves sizes open
/// has to say.
std::optional<QuantizationPlan> later_plan(const Module& module, const NoiseConfig& noise, const IpqConfig& ipq) {
  try {
    const std::vector<WeightInfo> infos = infos_of(module.weights());
    return make_plan(rules_of(ipq, infos), infos);
  } catch (const Error& error) {
    if (noise.block_size && noise.n_centroids) return std::nullopt;
    spdlog::warn(
        "the noise imitates product quantization by blocks of 8 with 256 centroids, unless quant_noise.block_size and "
        "n_centroids say otherwise: the section ipq quantizes this model in no way ({})",
        error.what());
    return std::nullopt;
  }
}

/// Noise that imitates a quantizer imitates the one to come.
void plan_run_noise(QuantizationPlan& plan, const Module& module, const NoiseConfig& noise, const IpqConfig* ipq,
                    const IpqConfig& later) {
  std::optional<QuantizationPlan> quantized;
  if (noise.imitates() && ipq == nullptr) quantized = later_plan(module, noise, later);
  plan_noise(plan, noise, quantized ? &*quantized : nullptr);
}

/// Those that quantize asks for, or else those that training quantizes.
void plan_run_activations(QuantizationPlan& plan, const Module& module, const NoiseConfig& noise,
                          const IpqConfig* ipq) {
  const bool own = ipq != nullptr && ipq->activations != Activations::none;
  const ActivationPlan how{.name = {},
                           .bits = static_cast<int>(own ? ipq->activation_bits : noise.activation_bits),
                           .range = own ? ipq->activation_range : noise.activation_range,
                           .range_updates = noise.range_updates};
  plan.activations = plan_activations(module, own ? ipq->activations : noise.activations, how);
  plan.round_activations = own || noise.scalar == 1.0;
}

}  // namespace

QuantizationPlan make_run_plan(const Module& module, const NoiseConfig& noise, const IpqConfig* ipq,
                               const IpqConfig& later) try {
  const WeightSet& weights = module.weights();
  const std::vector<WeightInfo> infos = infos_of(weights);
  QuantizationPlan plan = ipq != nullptr ? make_plan(rules_of(*ipq, infos), infos) : dense_plan(infos);
  if (ipq != nullptr) {
    if (ipq->dense_softmax) plan_cut_ties(plan, weights);
    plan.storage = packed_storage(*ipq);
  }
  plan_run_noise(plan, module, noise, ipq, later);
  plan_run_activations(plan, module, noise, ipq);
  return plan;
} catch (const UsageError&) {
  throw;
} catch (const Error& error) {  // whatever is wrong, configuration and rules have asked for it
  throw UsageError(error.what());
}

QuantizationPlan resume_run_plan(const std::string& stored, const Module& module, const NoiseConfig& noise,
                                 const IpqConfig* ipq, const IpqConfig& later) {
  const WeightSet& weights = module.weights();
  QuantizationPlan plan = plan_from_text(stored, "the checkpoint's plan");
  check_plan(plan, weights, "the checkpoint's plan");
  if (ipq != nullptr && plan.stages == 0) return make_run_plan(module, noise, ipq, later);
  if (ipq != nullptr) {
    compare_with_config(plan, module, *ipq);
    plan.storage = packed_storage(*ipq);
  }
  restore_groups(plan, weights);
  plan_run_noise(plan, module, noise, ipq, later);
  plan_run_activations(plan, module, noise, ipq);
  return plan;
}

PackedStorage packed_storage(const IpqConfig& config) {
  return {.side = config.centroids, .dense = config.dense, .norms = config.norms};
}

}  // namespace qn
