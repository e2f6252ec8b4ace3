// Scalar quantization noise: a random part of a dense weight is quantized to N bits in every forward pass of training
// (paper section 4.1, int-N), all of it in evaluation. With rate 1 this is quantization-aware training.
#pragma once

#include <memory>

#include "nn/weight.h"
#include "quant/scalar_quantizer.h"

namespace qn {

struct ScalarNoiseOptions {
  ScalarOptions grid = {};
  double rate = 0.0;            ///< share that is quantized in training
  int64_t block = 1;            ///< adjacent columns that are quantized together
  int64_t range_updates = 100;  ///< histogram: updates from one search to the next
};

/// Evaluation equals IntQuantizer's decoded codes bit for bit. But for histogram ranges, so does training with rate 1:
/// grids are fitted to the weight anew in every pass, on its device, so that nothing is ever out of range and the
/// gradient goes straight through to the master. The search of histogram ranges takes too long for that: training
/// searches before every `range_updates`-th update, on the host, and keeps the grid in checkpoints; values that are
/// out of range become the bound and have no gradient.
std::unique_ptr<Representation> make_scalar_noise(Parameter* dense, const ScalarNoiseOptions& options);

}  // namespace qn
