// Convolutions through cuDNN's graph API. Which engine suits a shape is asked once and remembered. In programs built
// without cuDNN no convolution has a plan.
#pragma once

#include "ops/kernels.h"

namespace qn::cuda {

enum class ConvPass { forward, input_grad, weight_grad };

/// The operands of a convolution or of one of its gradients: images x (or their gradient), results y (or theirs), both
/// channels last, and weights (or their gradient) as [out, kernel_h, kernel_w, in / groups]. The one that the pass
/// makes is overwritten. All have the type of activations: cuDNN makes no gradients of weights in float from operands
/// of 16 bits.
struct ConvOperands {
  ConvPass pass;
  ConvShape shape;
  DType dtype;
  void *x, *weights, *y;
};

/// Queues it on the calling thread's stream. False, with nothing done, where cuDNN has no engine for it that gives the
/// same result every time, within the workspace limit and in the precision that is wanted (see allow_tf32()).
bool convolve_by_plan(const ConvOperands& operands);

}  // namespace qn::cuda
