// How `quantize` trains after each stage: the keys of the section `ipq` that say so, and the updates of each stage; and
// what else a list of the section has for each stage.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compress/ipq_config.h"
#include "compress/plan.h"
#include "train/lr_schedule.h"
#include "train/optimizer.h"

namespace qn {

/// Updates of a stage whose codes have something to train, where the configuration does not say.
inline constexpr int64_t kDefaultStageUpdates = 250;

/// The section `ipq`: what is quantized, and how the rest is finetuned. With `updates_per_stage` the finetuning is that
/// of older configurations, which know nothing of what is beside it here.
struct QuantizeConfig : IpqConfig {
  std::vector<int64_t> stage_updates;
  OptimizerConfig optimizer{.name = OptimizerKind::adam, .beta2 = 0.98, .clip_norm = 1.0};
  ScheduleConfig schedule{.lr = 2e-3, .min_lr = 1e-5};
  std::vector<std::string> stage_optimizers;
  std::vector<double> stage_lr;
  std::optional<bool> keep_best;
  double average_decay = 0.0;
  std::vector<std::string> teacher;
  double teacher_weight = 0.5;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// The finetuning of one run, stage by stage. Stages count from 0; updates count on over all of them.
class Finetuning {
 public:
  Finetuning() = default;
  /// `optimizer` and `schedule` are those of the run. Throws qn::UsageError when a list is neither empty nor of one
  /// entry nor has one for every stage.
  Finetuning(const QuantizeConfig& config, const QuantizationPlan& plan, const OptimizerConfig& optimizer,
             const ScheduleConfig& schedule);

  int64_t total() const { return starts_.back(); }
  /// Updates that are done when the k-means of a stage is due; of the number of stages: all.
  int64_t start_of(int64_t stage) const { return starts_[static_cast<size_t>(stage)]; }
  const OptimizerConfig& optimizer(int64_t stage) const { return stages_[static_cast<size_t>(stage)].optimizer; }
  double peak_lr(int64_t stage) const { return stages_[static_cast<size_t>(stage)].schedule.lr; }
  /// Of the stage's k-means: 0 where all columns of a weight count alike.
  double input_exponent(int64_t stage) const { return stages_[static_cast<size_t>(stage)].input_exponent; }
  /// Of the update after `update` others, which is one of the stage's.
  double learning_rate(int64_t stage, int64_t update) const;

 private:
  struct Stage {
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    double input_exponent = 0.0;
  };
  std::vector<Stage> stages_;
  std::vector<int64_t> starts_{0};
  bool restart_schedule_ = false;
};

/// What tells the files of ipq.teacher from others, in any order; empty where there are none.
std::string teacher_contents(const QuantizeConfig& config);

/// What the section `ipq` says that does nothing beside its other keys and for the weights of this plan, a line each:
/// warnings, because configurations are inherited.
std::vector<std::string> options_without_effect(const QuantizeConfig& config, const QuantizationPlan& plan,
                                                const Finetuning& finetuning);

}  // namespace qn
