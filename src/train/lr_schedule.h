// Learning-rate schedules: pure functions of the number of completed updates (reference 7.6; the exponential one is
// that of TensorFlow's EfficientNets).
#pragma once

#include <optional>

#include "core/config.h"

namespace qn {

enum class Schedule { cosine, polynomial, inverse_sqrt, exponential, fixed };
template <>
struct EnumNames<Schedule> {
  static constexpr EnumName<Schedule> kAll[] = {{Schedule::cosine, "cosine"},
                                                {Schedule::polynomial, "polynomial"},
                                                {Schedule::inverse_sqrt, "inverse_sqrt"},
                                                {Schedule::exponential, "exponential"},
                                                {Schedule::fixed, "fixed"}};
};

/// The section `schedule` of a configuration.
struct ScheduleConfig {
  Schedule name = Schedule::cosine;
  double lr = 0.25;
  int64_t warmup_updates = 0;
  std::optional<double> warmup_epochs = {};
  std::optional<double> warmup_init_lr = {};
  double min_lr = 0.0;
  std::optional<int64_t> period_updates = {};
  double t_mult = 1.0;
  double lr_shrink = 0.1;
  std::optional<int64_t> total_updates = {};
  double end_lr = 0.0;
  double power = 1.0;
  double decay_rate = 0.97;
  std::optional<double> decay_updates = {}, decay_epochs = {};
  bool staircase = true;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// With updates in place of epochs: warmup_updates and decay_updates say what warmup_epochs and decay_epochs did.
/// Throws qn::UsageError where `updates_per_epoch` is needed and 0, which is: not known.
ScheduleConfig in_updates(ScheduleConfig config, int64_t updates_per_epoch);

/// Throws qn::UsageError when the schedule cannot go on to its end without a length that nobody has given:
/// `max_updates` is 0 where the number of updates is not known beforehand.
void check_schedule(const ScheduleConfig& config, int64_t max_updates);

/// The rate that update number n + 1 uses, n updates being complete; of a schedule without epochs (see in_updates()).
/// `max_updates` fills in the periods that the config leaves open (throws qn::Error when it is 0 and one is needed).
double learning_rate(const ScheduleConfig& config, int64_t n, int64_t max_updates);

}  // namespace qn
