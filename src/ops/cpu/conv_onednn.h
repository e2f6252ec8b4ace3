// Dense and grouped convolutions in float, and in bf16 where the processor multiplies it, through oneDNN: see
// Kernels::conv2d and its gradients. Images stay as they are; weights are reordered into oneDNN's blocks on each call.
#pragma once

#include "ops/kernels.h"

namespace qn::cpu {

/// Whether the functions below take activations of this type.
bool onednn_convolves(DType dtype);

void conv_onednn(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& shape,
                 const ConvEpilogue& epilogue);
void conv_onednn_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& shape, int beta);
void conv_onednn_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& shape, int beta);

}  // namespace qn::cpu
