#include "nn/layers/layer_drop.h"

namespace qn {

bool LayerDrop::runs(const Tape& tape, int64_t layer) const {
  if (!tape.training() || rate_ == 0.0) return true;
  const auto i = static_cast<size_t>(layer);
  if (!uniforms_.empty()) return uniforms_.at(i) > rate_;
  return RandomStream(tape.key(Purpose::layerdrop, 0)).uniform(i) > rate_;
}

}  // namespace qn
