// Depthwise convolutions with kernels of 3 x 3 and 5 x 5: see Kernels::conv2d and its gradients.
#pragma once

#include "ops/kernels.h"

namespace qn::cuda {

/// Whether the first and the last of the functions below take this shape.
bool depthwise_kernels_take(const ConvShape& s);
/// y = x (*) w, without an epilogue.
void depthwise(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s);
/// For strides of 1 only.
void depthwise_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta);
void depthwise_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta);

}  // namespace qn::cuda
