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

double fixed(const ScheduleConfig& s, int64_t n) {
  if (n >= s.warmup_updates) return s.lr;
  const double start = s.warmup_init_lr.value_or(0.0);
  return start + static_cast<double>(n) * (s.lr - start) / static_cast<double>(s.warmup_updates);
}

}  // namespace

void ScheduleConfig::visit(ConfigVisitor& v) {
  v.choice("name", name, "shape of the schedule");
  v.field("lr", lr, "peak learning rate");
  v.field("warmup_updates", warmup_updates, "updates of linear warm-up");
  v.field("warmup_init_lr", warmup_init_lr, "rate at the start of the warm-up (cosine: min_lr; inverse_sqrt: 0)");
  v.field("min_lr", min_lr, "cosine: the floor");
  v.field(
      "period_updates", period_updates,
      "cosine: length of the first period (null: those of the run, of max_updates or max_epochs, - warmup_updates)");
  v.field("t_mult", t_mult, "cosine: each period is this much longer than the one before");
  v.field("lr_shrink", lr_shrink, "cosine: each period's rates are those of the one before times this");
  v.field("total_updates", total_updates,
          "polynomial: updates until end_lr is reached (null: those of the run, of max_updates or max_epochs)");
  v.field("end_lr", end_lr, "polynomial: the final rate");
  v.field("power", power, "polynomial: the exponent");
}

void ScheduleConfig::validate(const ConfigChecker& c) const {
  for (const auto& [key, value] :
       {std::pair{"lr", lr}, {"min_lr", min_lr}, {"end_lr", end_lr}, {"warmup_init_lr", warmup_init_lr.value_or(0.0)}})
    c.check(value >= 0.0 && std::isfinite(value), key, "must be finite and not negative, got {}", value);
  c.check(power >= 0.0 && std::isfinite(power), "power", "must be finite and not negative, got {}", power);
  c.check(warmup_updates >= 0, "warmup_updates", "must not be negative, got {}", warmup_updates);
  c.check(!period_updates || *period_updates > 0, "period_updates", "must be positive or null");
  c.check(t_mult >= 1.0 && std::isfinite(t_mult), "t_mult", "must be finite and at least 1, got {}", t_mult);
  c.check(lr_shrink > 0.0 && lr_shrink <= 1.0, "lr_shrink", "must be in (0, 1], got {}", lr_shrink);
  c.check(!total_updates || *total_updates > warmup_updates, "total_updates", "must exceed warmup_updates");
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
  switch (config.name) {
    case Schedule::cosine:
      return cosine(config, n, max_updates);
    case Schedule::polynomial:
      return polynomial(config, n, max_updates);
    case Schedule::inverse_sqrt:
      return inverse_sqrt(config, n);
    case Schedule::fixed:
      return fixed(config, n);
  }
  QN_ASSERT(false, "unknown schedule");
}

}  // namespace qn
