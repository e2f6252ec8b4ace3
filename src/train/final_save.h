// The end of a run: everything it has to say is on disk, or the run has failed.
#pragma once

#include <functional>

#include "comm/communicator.h"
#include "train/checkpoint_folder.h"
#include "train/metrics_log.h"

namespace qn {

/// How long to try.
struct FinalPatience {
  double seconds = 0.0;
  std::function<bool()> stop_requested;  ///< true: no longer than kStopSeconds in all
  static constexpr double kStopSeconds = 20.0;
};

/// Waits until rank 0 has saved everything, trying again what fails. Collective: the other ranks wait with it, in
/// collectives that are entered again and again, so that no watchdog mistakes the wait for a hang. Throws qn::Error on
/// rank 0 when patience ends, saying what is lost and what there is. `folder` and `metrics`: null on the others.
void finish_saving(CheckpointFolder* folder, MetricsLog* metrics, Communicator& comm, const FinalPatience& patience);

}  // namespace qn
