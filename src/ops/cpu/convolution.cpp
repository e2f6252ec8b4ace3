// Which code computes a convolution.
#include "ops/cpu/conv_onednn.h"
#include "ops/cpu/conv_plain.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/depthwise.h"

namespace qn::cpu {
namespace {

bool is_vectorised(const ConvShape& s) { return s.depthwise() && std::max(s.kernel_h, s.kernel_w) <= kMostTaps; }

}  // namespace

void conv2d(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& shape, const ConvEpilogue& epilogue) {
  if (is_vectorised(shape)) return depthwise(y, x, w, shape, epilogue);
  if (onednn_convolves(y.dtype)) return conv_onednn(y, x, w, shape, epilogue);
  conv_plain(y, x, w, shape, epilogue);
}

void conv2d_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& shape, int beta) {
  if (is_vectorised(shape)) return depthwise_input_grad(dx, dy, w, shape, beta);
  if (onednn_convolves(dy.dtype)) return conv_onednn_input_grad(dx, dy, w, shape, beta);
  conv_plain_input_grad(dx, dy, w, shape, beta);
}

void conv2d_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& shape, int beta) {
  if (is_vectorised(shape)) return depthwise_weight_grad(dw, x, dy, shape, beta);
  if (onednn_convolves(dy.dtype)) return conv_onednn_weight_grad(dw, x, dy, shape, beta);
  conv_plain_weight_grad(dw, x, dy, shape, beta);
}

}  // namespace qn::cpu
