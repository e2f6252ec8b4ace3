#include "train/finetuning.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/file_io.h"
#include "core/text.h"
#include "quant/quantizer.h"

namespace qn {
namespace {

/// Entry `stage` of a list that has one for all stages, or one for each.
template <typename T>
T entry_of(const std::vector<T>& list, int64_t stage, int64_t stages, const char* key) {
  QN_CHECK_USAGE(list.size() == 1 || std::ssize(list) == stages,
                 "ipq.{} has {} entries, but there are {} stages: give one entry for all, or one for each", key,
                 list.size(), stages);
  return list.size() == 1 ? list.front() : list[static_cast<size_t>(stage)];
}

/// Whether finetuning can adapt what stands for the weights of a stage.
bool trains_codes(const QuantizationPlan& plan, int64_t stage) {
  const std::vector<WeightPlan> weights = plan.stage(stage);
  return std::any_of(weights.begin(), weights.end(), [](const WeightPlan& weight) {
    const std::vector<SideLayout> side = weight.quantizer->layout(weight.rows, weight.cols).side;
    return std::any_of(side.begin(), side.end(), [](const SideLayout& values) { return values.trainable; });
  });
}

int64_t updates_of(const QuantizeConfig& config, const QuantizationPlan& plan, int64_t stage) {
  if (config.updates_per_stage) return *config.updates_per_stage;
  if (!config.stage_updates.empty()) return entry_of(config.stage_updates, stage, plan.stages, "stage_updates");
  return trains_codes(plan, stage) ? kDefaultStageUpdates : 0;
}

}  // namespace

void QuantizeConfig::visit(ConfigVisitor& v) {
  IpqConfig::visit(v);
  v.field("stage_updates", stage_updates,
          "finetuning updates after each stage's k-means: one number for all stages, or one for each (empty: 250 after "
          "stages of product quantization, none after others)");
  v.section("optimizer", optimizer, "of the finetuning: the same keys as the section optimizer");
  v.section("schedule", schedule, "of the finetuning, over the updates of all stages: as the section schedule");
  v.field("stage_optimizers", stage_optimizers, "optimizer.name, one for each stage (empty: the same for all)");
  v.field("stage_lr", stage_lr, "schedule.lr, one for each stage (empty: the same for all)");
  v.field(
      "keep_best", keep_best,
      "validate at the end of each stage, and go on from (pack) the best model that was validated in the stage (null: "
      "unless updates_per_stage is set)");
  v.field(
      "average_decay", average_decay,
      "validate, pack and quantize further the average of what is trained over a stage's updates, in which older "
      "updates count by this factor less for every newer one; it rises to this number over the first updates (0: no "
      "average)");
  v.field("teacher", teacher,
          "model files, usually of the dense model: finetuning draws the distribution of every word to the mean of "
          "theirs (Kullback-Leibler divergence), too");
  v.field("teacher_weight", teacher_weight, "what that counts in the loss; the targets count the rest to 1");
}

void QuantizeConfig::validate(const ConfigChecker& c) const {
  IpqConfig::validate(c);
  for (const int64_t n : stage_updates) c.check(n >= 0, "stage_updates", "must not be negative, got {}", n);
  c.check(!updates_per_stage || (stage_updates.empty() && stage_optimizers.empty() && stage_lr.empty()),
          "updates_per_stage",
          "belongs to another recipe than stage_updates, stage_optimizers and stage_lr: leave it out");
  for (const std::string& name : stage_optimizers)
    c.check(find_value<OptimizerKind>(name).has_value(), "stage_optimizers", "there is no optimizer '{}': {}", name,
            fmt::join(names_of(all_values<OptimizerKind>()), ", "));
  for (const double lr : stage_lr)
    c.check(lr >= 0.0 && std::isfinite(lr), "stage_lr", "must be finite and not negative, got {}", lr);
  c.check(teacher_weight >= 0.0 && teacher_weight <= 1.0, "teacher_weight", "must be in [0, 1], got {}",
          teacher_weight);
  c.check(average_decay >= 0.0 && average_decay < 1.0, "average_decay", "must be in [0, 1), got {}", average_decay);
}

Finetuning::Finetuning(const QuantizeConfig& config, const QuantizationPlan& plan, const OptimizerConfig& optimizer,
                       const ScheduleConfig& schedule)
    : restart_schedule_(config.restart_schedule) {
  for (int64_t stage = 0; stage < plan.stages; ++stage) {
    starts_.push_back(starts_.back() + updates_of(config, plan, stage));
    Stage own{optimizer, schedule};
    if (!config.stage_optimizers.empty())
      own.optimizer.become(value_named<OptimizerKind>(
          entry_of(config.stage_optimizers, stage, plan.stages, "stage_optimizers"), "ipq.stage_optimizers"));
    if (!config.stage_lr.empty()) own.schedule.lr = entry_of(config.stage_lr, stage, plan.stages, "stage_lr");
    if (!config.input_exponent.empty())
      own.input_exponent = entry_of(config.input_exponent, stage, plan.stages, "input_exponent");
    stages_.push_back(std::move(own));
  }
}

std::string teacher_contents(const QuantizeConfig& config) {
  std::set<std::string> sums;
  for (const std::string& path : config.teacher) {
    const MappedFile file(path);
    sums.insert(hex64(hash_bytes(file.bytes().data(), file.size())));
  }
  return fmt::format("{}", fmt::join(sums, " "));
}

std::vector<std::string> options_without_effect(const QuantizeConfig& config, const QuantizationPlan& plan,
                                                const Finetuning& finetuning) {
  const QuantizeConfig usual;
  std::vector<std::string> lines;
  const auto idle = [&](bool said, bool used, const char* key, const std::string& reason) {
    if (said && !used) lines.push_back(fmt::format("ipq.{} has no effect: {}", key, reason));
  };
  bool product = false, moves = false;
  for (int64_t stage = 0; stage < plan.stages; ++stage) {
    const auto weights = plan.stage(stage);
    const bool here = std::any_of(weights.begin(), weights.end(),
                                  [](const WeightPlan& weight) { return weight.quantizer->kmeans().has_value(); });
    product |= here;
    // The last blocks move so many updates before the end that they can find their place.
    const int64_t updates = finetuning.start_of(stage + 1) - finetuning.start_of(stage);
    moves |= here && config.reassign_updates > 0 && updates >= 2 * config.reassign_updates;
  }
  const bool trains = finetuning.total() > 0, by_method = config.quantizer.empty();
  const bool integers = by_method && config.method == QuantizeMethod::integer;
  const std::string no_product = "it is for product quantization, and no weight gets that";
  const std::string no_updates = "no stage has updates (ipq.stage_updates)";
  const std::string no_integers = "it is for ipq.method int";
  idle(config.bits != usual.bits, integers, "bits", no_integers);
  idle(config.range != usual.range, integers, "range", no_integers);
  idle(config.centroid_gradient != usual.centroid_gradient, product, "centroid_gradient", no_product);
  idle(config.centroids != usual.centroids, product, "centroids", no_product);
  idle(config.kmeans_iterations != usual.kmeans_iterations, product, "kmeans_iterations", no_product);
  idle(config.frequency_exponent != usual.frequency_exponent, product, "frequency_exponent", no_product);
  idle(config.reassign_updates > 0, moves, "reassign_updates",
       product ? "no stage of product quantization has twice as many updates" : no_product);
  idle(config.reassign_share != usual.reassign_share, config.reassign_updates > 0, "reassign_share",
       "ipq.reassign_updates is 0");
  const bool activations = config.activations != Activations::none;
  idle(config.activation_bits != usual.activation_bits, activations, "activation_bits", "ipq.activations is none");
  idle(config.activation_range != usual.activation_range, activations, "activation_range", "ipq.activations is none");
  idle(config.teacher_weight != usual.teacher_weight, !config.teacher.empty(), "teacher_weight",
       "there is no ipq.teacher");
  idle(!config.teacher.empty(), trains && config.teacher_weight > 0.0, "teacher",
       trains ? "ipq.teacher_weight is 0" : no_updates);
  idle(config.average_decay > 0.0, trains, "average_decay", no_updates);
  return lines;
}

double Finetuning::learning_rate(int64_t stage, int64_t update) const {
  const ScheduleConfig& schedule = stages_[static_cast<size_t>(stage)].schedule;
  if (!restart_schedule_) return qn::learning_rate(schedule, update, total());
  return qn::learning_rate(schedule, update - start_of(stage), start_of(stage + 1) - start_of(stage));
}

}  // namespace qn
