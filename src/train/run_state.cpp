#include "train/run_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace qn {
namespace {

std::string name_of_best(size_t place) { return fmt::format("best_values/{}", place); }

}  // namespace

bool RunState::record(const Metric& decisive) {
  const bool better = decisive.higher_is_better ? decisive.value > best : decisive.value < best;
  const bool improved = std::isfinite(decisive.value) && (validations == 0 || better || !std::isfinite(best));
  if (improved || validations == 0) best = decisive.value;
  ++validations;
  bad_validations = improved ? 0 : bad_validations + 1;
  return improved;
}

bool RunState::enter_best(const Metric& decisive, int64_t keep) {
  best_values.resize(std::min(best_values.size(), static_cast<size_t>(keep)));
  if (!std::isfinite(decisive.value) || keep == 0) return false;
  // An equal value comes behind the earlier ones.
  const auto place = std::upper_bound(
      best_values.begin(), best_values.end(), decisive.value,
      [&](double value, double other) { return decisive.higher_is_better ? value > other : value < other; });
  if (place - best_values.begin() >= keep) return false;
  best_values.insert(place, decisive.value);
  best_values.resize(std::min(best_values.size(), static_cast<size_t>(keep)));
  return true;
}

void RunState::save(StateDict& state) const {
  state.ints["update"] = update;
  state.ints["validations"] = validations;
  state.ints["bad_validations"] = bad_validations;
  state.ints["skipped_updates"] = skipped_updates;
  if (rollbacks > 0) state.ints["rollbacks"] = rollbacks;
  state.floats["best_loss"] = best;
  state.floats["training_seconds"] = training_seconds;
  for (size_t i = 0; i < best_values.size(); ++i) state.floats[name_of_best(i)] = best_values[i];
}

void RunState::load(const StateDict& state) {
  update = state.integer("update");
  validations = state.integer("validations");
  bad_validations = state.integer("bad_validations");
  skipped_updates = state.ints.contains("skipped_updates") ? state.integer("skipped_updates") : 0;
  rollbacks = state.ints.contains("rollbacks") ? state.integer("rollbacks") : 0;
  best = state.real("best_loss");
  training_seconds = state.real("training_seconds");
  best_values.clear();
  while (state.floats.contains(name_of_best(best_values.size())))
    best_values.push_back(state.real(name_of_best(best_values.size())));
}

}  // namespace qn
