// How far a run is: what a checkpoint says beside parameters, optimizer and data.
#pragma once

#include <vector>

#include "nn/state_dict.h"
#include "train/task.h"

namespace qn {

struct RunState {
  int64_t update = 0;  ///< started so far
  int64_t validations = 0, bad_validations = 0;
  double best = 0.0;            ///< of the decisive metric; meaningful once validations > 0, NaN while none was finite
  int64_t skipped_updates = 0;  ///< because their loss or gradient was not finite
  int64_t rollbacks = 0;        ///< train.on_spike
  double training_seconds = 0.0;
  std::vector<double> best_values;  ///< of the checkpoint.keep_best best validations, best first

  /// Counts a validation; true when its decisive metric is finite and the best so far.
  bool record(const Metric& decisive);
  /// Whether a validation is one of the `keep` best so far; then it is remembered as such.
  bool enter_best(const Metric& decisive, int64_t keep);
  void save(StateDict& state) const;
  void load(const StateDict& state);
};

}  // namespace qn
