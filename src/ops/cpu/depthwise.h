// Depthwise convolutions: see Kernels::conv2d and its gradients.
#pragma once

#include "ops/kernels.h"

namespace qn::cpu {

/// Largest kernel of an axis.
inline constexpr int64_t kMostTaps = 16;

void depthwise(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& shape, const ConvEpilogue& epilogue);
void depthwise_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& shape, int beta);
void depthwise_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& shape, int beta);

}  // namespace qn::cpu
