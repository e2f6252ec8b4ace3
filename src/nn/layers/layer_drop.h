// LayerDrop: whole layers are left out of training passes, so that a trained network can do with fewer (Fan, Grave,
// Joulin: Reducing Transformer Depth on Demand with Structured Dropout, ICLR 2020; reference 4).
#pragma once

#include <cstdint>
#include <vector>

#include "ops/tape.h"

namespace qn {

class LayerDrop {
 public:
  /// `rate` in [0, 1): the probability that a layer is left out of a training pass.
  explicit LayerDrop(double rate) : rate_(rate) {}

  /// Whether layer `layer` runs in this pass: in training, if its number, uniform in [0, 1), is above the rate; outside
  /// always. Nothing is scaled. A pure function of seed, update, micro-batch and layer: the host decides, so backends
  /// and ranks agree, and a graph of a pass is one of its decision.
  bool runs(const Tape& tape, int64_t layer) const;
  /// Numbers in place of those drawn, one per layer: to repeat another program's pass.
  void set_uniforms(std::vector<double> uniforms) { uniforms_ = std::move(uniforms); }

 private:
  double rate_;
  std::vector<double> uniforms_;
};

}  // namespace qn
