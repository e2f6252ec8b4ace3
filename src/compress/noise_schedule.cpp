#include "compress/noise_schedule.h"

#include <cmath>

#include "core/error.h"

namespace qn {

double NoiseSchedule::share(int64_t update, int64_t total) const {
  constexpr double kSteps = 32.0;
  if (always()) return 1.0;
  QN_ASSERT(total > 0);
  const auto all = static_cast<double>(total);
  const int64_t first = std::llround(start * all), last = std::llround(end * all);
  if (update < first || update >= last) return 0.0;
  if (rate == RateSchedule::constant) return 1.0;
  return std::ceil(static_cast<double>(update - first + 1) * kSteps / static_cast<double>(last - first)) / kSteps;
}

}  // namespace qn
