// The differentiable ops of image networks. Images are [batch, height, width, channels]; what ops/ops.h says about
// types holds here too.
#pragma once

#include "ops/conv_shape.h"
#include "ops/ops.h"

namespace qn {

/// x [batch, height, width, in] convolved with `weight`, [out, in / groups, kernel_h, kernel_w] or its matrix, as
/// `shape` says: [batch, out_height, out_width, out]. No bias. An epilogue is for passes that record no gradient.
Var conv2d(Tape& tape, const Var& x, const Var& weight, const ConvShape& shape, const ConvEpilogue& epilogue = {});

struct BatchNormArgs {
  double eps = 1e-5;
  Tensor running_mean = {}, running_var = {};  ///< P [C]; used when not training, or frozen
  bool frozen = false;                         ///< running averages in training too
  /// P [2, C], or undefined. Training adds the mean and the unbiased variance of this pass, from which running averages
  /// can be made once for all micro-batches of an update.
  Tensor batch_sums = {};
  FusedActivation activation = {};  ///< behind the normalisation
};
/// Normalises the columns of x (channels of images [batch, height, width, C]), then scales and shifts by weight [C] and
/// bias [C] (Ioffe and Szegedy 2015). In training by mean and biased variance of the batch (of all ranks' with
/// PassOptions::ranks), which gradients go through; otherwise by the running averages, which they do not. Throws
/// qn::Error where a batch in training has one value per channel.
Var batch_norm(Tape& tape, const Var& x, const Var& weight, const Var& bias, const BatchNormArgs& args);
/// A normalisation by running averages as what a convolution does with its sums.
ConvEpilogue fold_batch_norm(Tape& tape, const Var& weight, const Var& bias, const BatchNormArgs& args);

/// The mean over all pixels: [batch, height, width, C] becomes [batch, C].
Var average_pool(Tape& tape, const Var& x);
/// Every channel of every image of x [batch, height, width, C] times its s [batch, C] (squeeze and excitation).
Var scale_channels(Tape& tape, const Var& x, const Var& s);
/// residual + keep[b] / (1 - p) * x for image b: stochastic depth (Huang et al. 2016), by row as torchvision and timm.
/// Without dropping, residual + x.
Var drop_path(Tape& tape, const Var& residual, const Var& x, const Dropout& drop);

}  // namespace qn
