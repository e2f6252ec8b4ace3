// Scalar quantization noise: a random part of a dense weight is quantized to N bits in every forward pass of training
// (paper section 4.1, int-N), all of it in evaluation. With rate 1 this is quantization-aware training.
#pragma once

#include <memory>

#include "nn/weight.h"
#include "quant/scalar_quantizer.h"

namespace qn {

/// Grids are fitted to the weight anew in every pass, on its device, so that nothing is ever out of range and the
/// gradient goes straight through to the master. Elements (`block` 1) or `block` adjacent columns are quantized
/// together, with probability `rate`. Evaluation equals IntQuantizer's decoded codes bit for bit. Not for histogram
/// ranges, whose search is too slow for a pass.
std::unique_ptr<Representation> make_scalar_noise(Parameter* dense, const ScalarOptions& options, double rate,
                                                  int64_t block);

}  // namespace qn
