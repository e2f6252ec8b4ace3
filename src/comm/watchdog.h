// Ends the job on all ranks when one of them is dead, stuck or silent: nothing waits forever. A thread of its own in
// every rank talks to rank 0 over TCP, because MPI must not be called from a second thread and may itself be what
// hangs.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace qn {

/// Exit status of every rank that a watchdog ends.
inline constexpr int kWatchdogExit = 4;

/// 0 (off) or at least 1, and finite.
constexpr bool watchdog_seconds_fit(double seconds) { return seconds == 0.0 || (seconds >= 1.0 && seconds <= 1e9); }

/// Watches for as long as it lives. Its destructor tells the others that this rank is through, or, while an exception
/// unwinds the stack, that it failed.
class Watchdog {
 public:
  virtual ~Watchdog() = default;
};

/// Starts watching; collective. `seconds` is the longest that a rank may be silent or keep another one waiting,
/// local work such as writing a file included. Every rank tells rank 0 once a second what core/activity.h says; rank 0
/// decides (comm/watchdog_judge.h) and tells all, who print one error and end with kWatchdogExit. Null with one rank,
/// with 0 seconds, and, after a warning, where ranks cannot connect to rank 0.
std::unique_ptr<Watchdog> start_watchdog(Communicator& comm, double seconds);

}  // namespace qn
