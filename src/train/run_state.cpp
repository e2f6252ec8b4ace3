#include "train/run_state.h"

namespace qn {

bool RunState::record(const Metric& decisive) {
  const bool better = decisive.higher_is_better ? decisive.value > best : decisive.value < best;
  const bool improved = validations == 0 || better;
  ++validations;
  if (improved) best = decisive.value;
  bad_validations = improved ? 0 : bad_validations + 1;
  return improved;
}

void RunState::save(StateDict& state) const {
  state.ints["update"] = update;
  state.ints["validations"] = validations;
  state.ints["bad_validations"] = bad_validations;
  state.floats["best_loss"] = best;
  state.floats["training_seconds"] = training_seconds;
}

void RunState::load(const StateDict& state) {
  update = state.integer("update");
  validations = state.integer("validations");
  bad_validations = state.integer("bad_validations");
  best = state.real("best_loss");
  training_seconds = state.real("training_seconds");
}

}  // namespace qn
