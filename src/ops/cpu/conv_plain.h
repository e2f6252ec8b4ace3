// Convolutions of any groups in plain loops: in double for gradient checks, and where a processor has no instructions
// for the type. See Kernels::conv2d and its gradients.
#pragma once

#include "ops/kernels.h"

namespace qn::cpu {

void conv_plain(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& shape,
                const ConvEpilogue& epilogue);
void conv_plain_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& shape, int beta);
void conv_plain_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& shape, int beta);

}  // namespace qn::cpu
