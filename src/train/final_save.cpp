#include "train/final_save.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"

namespace qn {
namespace {

/// One look of rank 0: true when nothing is left to be written.
bool all_written(CheckpointFolder& folder, MetricsLog& metrics) {
  folder.wait();
  folder.poll();
  folder.wait();
  return metrics.flush() && folder.idle();
}

[[noreturn]] void give_up(const CheckpointFolder& folder, const MetricsLog& metrics) {
  if (!folder.idle())
    fail("the end of this run is lost: {}. Put that right and run the same command: it goes on from there",
         folder.failure());
  fail("{} records could not be written to {}; everything else is saved", metrics.held_back(), metrics.path().string());
}

}  // namespace

void finish_saving(CheckpointFolder* folder, MetricsLog* metrics, Communicator& comm, const FinalPatience& patience) {
  const auto start = std::chrono::steady_clock::now();
  for (bool told = false;; told = true) {
    const int64_t open = comm.all_reduce_sum_value(int64_t{folder != nullptr && !all_written(*folder, *metrics)});
    if (open == 0) return;
    if (folder != nullptr) {
      const bool hurry = patience.stop_requested && patience.stop_requested();
      const double limit = hurry ? std::min(patience.seconds, FinalPatience::kStopSeconds) : patience.seconds;
      const double waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (waited >= limit) give_up(*folder, *metrics);
      if (!told) spdlog::warn("the run is over but not all saved: trying again for up to {:.0f} s", limit);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

}  // namespace qn
