#include "train/run_state.h"

#include <cmath>

namespace qn {

bool RunState::record(const Metric& decisive) {
  const bool better = decisive.higher_is_better ? decisive.value > best : decisive.value < best;
  const bool improved = std::isfinite(decisive.value) && (validations == 0 || better || !std::isfinite(best));
  if (improved || validations == 0) best = decisive.value;
  ++validations;
  bad_validations = improved ? 0 : bad_validations + 1;
  return improved;
}

void RunState::save(StateDict& state) const {
  state.ints["update"] = update;
  state.ints["validations"] = validations;
  state.ints["bad_validations"] = bad_validations;
  state.ints["skipped_updates"] = skipped_updates;
  state.floats["best_loss"] = best;
  state.floats["training_seconds"] = training_seconds;
}

void RunState::load(const StateDict& state) {
  update = state.integer("update");
  validations = state.integer("validations");
  bad_validations = state.integer("bad_validations");
  skipped_updates = state.ints.contains("skipped_updates") ? state.integer("skipped_updates") : 0;
  best = state.real("best_loss");
  training_seconds = state.real("training_seconds");
}

}  // namespace qn
