#include "train/slow_ranks.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "comm/watchdog_judge.h"
#include "core/log.h"
#include "core/machine.h"

namespace qn {
namespace {

constexpr double kWorthTelling = 1.0;  // seconds of computing, below which chance may decide

}  // namespace

double slowness_of(std::span<const double> seconds_per_micro_batch, size_t rank) {
  std::vector<double> others;
  for (size_t r = 0; r < seconds_per_micro_batch.size(); ++r)
    if (r != rank && seconds_per_micro_batch[r] > 0.0) others.push_back(seconds_per_micro_batch[r]);
  if (others.empty()) return 0.0;
  const auto median = others.begin() + std::ssize(others) / 2;
  std::nth_element(others.begin(), median, others.end());
  const double slowness = seconds_per_micro_batch[rank] / *median;
  return slowness > kSlowFactor ? slowness : 0.0;
}

void SlowRanks::add(double seconds, int64_t micro_batches) {
  seconds_ += seconds;
  micro_batches_ += micro_batches;
}

void SlowRanks::compare() {
  const double seconds = std::exchange(seconds_, 0.0);
  const int64_t micro_batches = std::exchange(micro_batches_, 0);
  if (comm_.size() == 1) return;
  const auto own = static_cast<size_t>(comm_.rank());
  std::vector<double> all(static_cast<size_t>(comm_.size()), 0.0);
  if (micro_batches > 0) all[own] = seconds / static_cast<double>(micro_batches);
  comm_.all_reduce_max(all);
  const double slowness = slowness_of(all, own);
  if (slowness == 0.0 || seconds < kWorthTelling || warned_) return;
  warned_ = true;
  warn_of_this_rank(fmt::format(
      "{} is slow: its micro-batches take {:.1f} times as long as the others', who wait for it; look at what "
      "else runs on its machine",
      rank_name(comm_.rank(), host_name()), slowness));
}

}  // namespace qn
