// When a run's noise is on, and how much of it: a pure function of the update's number, so that a run that is resumed
// draws what it would have drawn.
#pragma once

#include <cstdint>

#include "core/enum_names.h"

namespace qn {

/// How the rate gets to its full height: it has it from the start of the window, or rises from zero to its end.
enum class RateSchedule { constant, linear };
template <>
struct EnumNames<RateSchedule> {
  static constexpr EnumName<RateSchedule> kAll[] = {{RateSchedule::constant, "constant"},
                                                    {RateSchedule::linear, "linear"}};
};

struct NoiseSchedule {
  double start = 0.0, end = 1.0;  ///< the window, as fractions of the run's updates
  RateSchedule rate = RateSchedule::constant;

  bool operator==(const NoiseSchedule&) const = default;
  /// The same in every update, so that nobody has to know how many there are.
  bool always() const { return *this == NoiseSchedule(); }
  /// Share of the full rate in the update that comes after `update` others, of `total` in all (only always() takes 0:
  /// not known). A linear rise has 32 steps, so that passes stay the same for some updates: graphs of them can be used
  /// again (train/graphed_passes.h).
  double share(int64_t update, int64_t total) const;
  /// Of what comes after the training.
  double share_at_the_end() const { return end < 1.0 ? 0.0 : 1.0; }
};

}  // namespace qn
