// Finds a rank that keeps the others waiting, update after update: an overheated processor, a foreign job on its
// machine. The job goes on at its pace, so all that can be done is to say so.
#pragma once

#include <span>
#include <string>

#include "comm/communicator.h"

namespace qn {

/// How often, compared with the median of the others, a rank's micro-batches may take longer.
inline constexpr double kSlowFactor = 3.0;

/// The rank's time per micro-batch over the median of those of the others, if that is beyond kSlowFactor; else 0. Only
/// ranks with a positive time count.
double slowness_of(std::span<const double> seconds_per_micro_batch, size_t rank);

class SlowRanks {
 public:
  explicit SlowRanks(Communicator& comm) : comm_(comm) {}

  /// This rank has computed for so long.
  void add(double seconds, int64_t micro_batches);
  /// Compares the ranks over what was added since the last time; a slow one warns of itself, once. Collective.
  void compare();

 private:
  Communicator& comm_;
  double seconds_ = 0.0;
  int64_t micro_batches_ = 0;
  bool warned_ = false;
};

}  // namespace qn
