#include "train/finetuning.h"

#include <algorithm>
#include <cmath>

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
    c.check(name == name_of(OptimizerKind::adam) || name == name_of(OptimizerKind::nag), "stage_optimizers",
            "there is no optimizer '{}': nag or adam", name);
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
      own.optimizer.name = value_named<OptimizerKind>(
          entry_of(config.stage_optimizers, stage, plan.stages, "stage_optimizers"), "ipq.stage_optimizers");
    if (!config.stage_lr.empty()) own.schedule.lr = entry_of(config.stage_lr, stage, plan.stages, "stage_lr");
    if (!config.input_exponent.empty())
      own.input_exponent = entry_of(config.input_exponent, stage, plan.stages, "input_exponent");
    stages_.push_back(std::move(own));
  }
}

double Finetuning::learning_rate(int64_t stage, int64_t update) const {
  const ScheduleConfig& schedule = stages_[static_cast<size_t>(stage)].schedule;
  if (!restart_schedule_) return qn::learning_rate(schedule, update, total());
  return qn::learning_rate(schedule, update - start_of(stage), start_of(stage + 1) - start_of(stage));
}

}  // namespace qn
