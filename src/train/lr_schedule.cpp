#include "train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qn {
namespace {

double cosine(const ScheduleConfig& s, int64_t n, int64_t max_updates) {
  const double peak = s.lr, floor = std::min(s.min_lr, peak);
  const auto warmup = s.warmup_updates;
  if (n < warmup) {
    const double start = s.warmup_init_lr.value_or(floor);
    return start + static_cast<double>(n) * (peak - start) / static_cast<double>(warmup);
  }
  QN_CHECK(
      s.period_updates || max_updates > 0,
      "schedule.period_updates is needed: without train.max_updates or max_epochs the cosine has no natural period");
  const auto period = static_cast<double>(s.period_updates.value_or(max_updates - warmup));
  QN_CHECK(period > 0, "the cosine period is {}: train.max_updates must exceed schedule.warmup_updates = {}", period,
           warmup);
  const auto c = static_cast<double>(n - warmup);
  double cycle, length, position;
  if (s.t_mult != 1.0) {
    cycle = std::floor(std::log(1.0 - c / period * (1.0 - s.t_mult)) / std::log(s.t_mult));
    length = std::pow(s.t_mult, cycle) * period;
    position = c - (1.0 - std::pow(s.t_mult, cycle)) / (1.0 - s.t_mult) * period;
  } else {
    cycle = std::floor(c / period);
    length = period;
    position = c - period * cycle;
  }
  const double shrink = std::pow(s.lr_shrink, cycle);
  const double low = floor * shrink, high = peak * shrink;
  return low + 0.5 * (high - low) * (1.0 + std::cos(std::numbers::pi * position / length));
}

double polynomial(const ScheduleConfig& s, int64_t n, int64_t max_updates) {
  const auto warmup = s.warmup_updates;
  if (warmup > 0 && n <= warmup) return s.lr * static_cast<double>(n) / static_cast<double>(warmup);
  QN_CHECK(s.total_updates || max_updates > 0,
           "schedule.total_updates is needed: without train.max_updates or max_epochs the decay has no end");
  const int64_t total = s.total_updates.value_or(max_updates);
  if (n >= total) return s.end_lr;
  const double remaining = 1.0 - static_cast<double>(n - warmup) / static_cast<double>(total - warmup);
  return (s.lr - s.end_lr) * std::pow(remaining, s.power) + s.end_lr;
}

double inverse_sqrt(const ScheduleConfig& s, int64_t n) {
  const auto warmup = static_cast<double>(std::max<int64_t>(s.warmup_updates, 1));
  const double start = s.warmup_init_lr.value_or(s.warmup_updates > 0 ? 0.0 : s.lr);
  const auto done = static_cast<double>(n);
  if (done < warmup) return start + done * (s.lr - start) / warmup;
  return s.lr * std::sqrt(warmup / done);
}

/// Of the first warmup_updates updates.
double warmup_from_zero(const ScheduleConfig& s, int64_t n) {
  const double start = s.warmup_init_lr.value_or(0.0);
  return start + static_cast<double>(n) * (s.lr - start) / static_cast<double>(s.warmup_updates);
}

double fixed(const ScheduleConfig& s, int64_t n) { return n >= s.warmup_updates ? s.lr : warmup_from_zero(s, n); }

/// The decay counts from the start of the run, so that the warm-up hides its first steps.
double exponential(const ScheduleConfig& s, int64_t n) {
  if (n < s.warmup_updates) return warmup_from_zero(s, n);
  QN_ASSERT(s.decay_updates, "the exponential schedule has no length");
  constexpr double kRounding = 1e-9;  // of decay_epochs times the updates of an epoch: a step is due, not almost due
  const double periods = static_cast<double>(n) / *s.decay_updates;
  const double decayed = s.lr * std::pow(s.decay_rate, s.staircase ? std::floor(periods + kRounding) : periods);
  return std::max(decayed, std::min(s.min_lr, s.lr));
}

}  // namespace

void ScheduleConfig::visit(ConfigVisitor& v) {
  v.choice("name", name, "shape of the schedule");
  v.field("lr", lr, "peak learning rate");
  v.field("warmup_updates", warmup_updates, "updates of linear warm-up");
  v.field("warmup_epochs", warmup_epochs, "the same in epochs, in place of warmup_updates (null: as that says)");
  v.field("warmup_init_lr", warmup_init_lr, "rate at the start of the warm-up (null: 0; cosine: min_lr)");
  v.field("min_lr", min_lr, "cosine, exponential: the floor");
  v.field(
      "period_updates", period_updates,
      "cosine: length of the first period (null: those of the run, of max_updates or max_epochs, - warmup_updates)");
  v.field("t_mult", t_mult, "cosine: each period is this much longer than the one before");
  v.field("lr_shrink", lr_shrink, "cosine: each period's rates are those of the one before times this");
  v.field("total_updates", total_updates,
          "polynomial: updates until end_lr is reached (null: those of the run, of max_updates or max_epochs)");
  v.field("end_lr", end_lr, "polynomial: the final rate");
  v.field("power", power, "polynomial: the exponent");
  v.field("decay_rate", decay_rate,
          "exponential: what the rate is multiplied by in every decay_epochs or decay_updates");
  v.field("decay_epochs", decay_epochs,
          "exponential: in so many epochs, counted from the start of the run, warm-up included (EfficientNets: 2.4)");
  v.field("decay_updates", decay_updates, "exponential: the same in updates, in place of decay_epochs");
  v.field("staircase", staircase,
          "exponential: all at once at the end of each period, as TensorFlow (false: smoothly)");
}

void ScheduleConfig::validate(const ConfigChecker& c) const {
  for (const auto& [key, value] :
       {std::pair{"lr", lr}, {"min_lr", min_lr}, {"end_lr", end_lr}, {"warmup_init_lr", warmup_init_lr.value_or(0.0)}})
    c.check(value >= 0.0 && std::isfinite(value), key, "must be finite and not negative, got {}", value);
  c.check(power >= 0.0 && std::isfinite(power), "power", "must be finite and not negative, got {}", power);
  c.check(warmup_updates >= 0, "warmup_updates", "must not be negative, got {}", warmup_updates);
  c.check(!warmup_epochs || (*warmup_epochs >= 0.0 && std::isfinite(*warmup_epochs)), "warmup_epochs",
          "must be finite and not negative, or null");
  c.check(!warmup_epochs || warmup_updates == 0, "warmup_epochs",
          "and warmup_updates = {} both say how long the warm-up is: set one of them (warmup_updates: 0)",
          warmup_updates);
  for (const auto& [key, value] : {std::pair{"decay_epochs", decay_epochs}, {"decay_updates", decay_updates}})
    c.check(!value || (*value > 0.0 && std::isfinite(*value)), key, "must be positive and finite, or null");
  c.check(!decay_epochs || !decay_updates, "decay_epochs",
          "and decay_updates both say when the rate decays: set one of them (decay_updates: null)");
  c.check(name != Schedule::exponential || decay_epochs || decay_updates, "decay_epochs",
          "or decay_updates is needed by the exponential schedule: when its rate is multiplied by decay_rate");
  c.check(decay_rate > 0.0 && decay_rate <= 1.0, "decay_rate", "must be in (0, 1], got {}", decay_rate);
  c.check(!period_updates || *period_updates > 0, "period_updates", "must be positive or null");
  c.check(t_mult >= 1.0 && std::isfinite(t_mult), "t_mult", "must be finite and at least 1, got {}", t_mult);
  c.check(lr_shrink > 0.0 && lr_shrink <= 1.0, "lr_shrink", "must be in (0, 1], got {}", lr_shrink);
  c.check(!total_updates || *total_updates > warmup_updates, "total_updates", "must exceed warmup_updates");
}

ScheduleConfig in_updates(ScheduleConfig config, int64_t updates_per_epoch) {
  if (!config.warmup_epochs && !config.decay_epochs) return config;
  QN_CHECK_USAGE(updates_per_epoch > 0,
                 "schedule.{0}_epochs: nobody can tell how many updates an epoch of these data has: set "
                 "schedule.{0}_updates in its place",
                 config.warmup_epochs ? "warmup" : "decay");
  const auto updates = static_cast<double>(updates_per_epoch);
  if (config.warmup_epochs) config.warmup_updates = std::llround(*config.warmup_epochs * updates);
  if (config.decay_epochs) config.decay_updates = *config.decay_epochs * updates;
  config.warmup_epochs = config.decay_epochs = {};
  QN_CHECK_USAGE(!config.total_updates || *config.total_updates > config.warmup_updates,
                 "schedule.total_updates = {} must exceed the {} updates of schedule.warmup_epochs",
                 *config.total_updates, config.warmup_updates);
  return config;
}

void check_schedule(const ScheduleConfig& config, int64_t max_updates) {
  const char* key = config.name == Schedule::cosine && !config.period_updates      ? "period_updates"
                    : config.name == Schedule::polynomial && !config.total_updates ? "total_updates"
                                                                                   : nullptr;
  QN_CHECK_USAGE(
      key == nullptr || max_updates > 0,
      "schedule.name: {} has no end here: neither train.max_updates nor train.max_epochs says how many updates "
      "there will be; set one of them, or schedule.{}",
      name_of(config.name), key);
}

double learning_rate(const ScheduleConfig& config, int64_t n, int64_t max_updates) {
  QN_ASSERT(!config.warmup_epochs && !config.decay_epochs, "a schedule in epochs");
  switch (config.name) {
    case Schedule::cosine:
      return cosine(config, n, max_updates);
    case Schedule::polynomial:
      return polynomial(config, n, max_updates);
    case Schedule::inverse_sqrt:
      return inverse_sqrt(config, n);
    case Schedule::exponential:
      return exponential(config, n);
    case Schedule::fixed:
      return fixed(config, n);
  }
  QN_ASSERT(false, "unknown schedule");
}

}  // namespace qn
