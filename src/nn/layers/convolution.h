// Convolutions and batch normalisation as layers: named weights, parameters and running averages plus one op.
#pragma once

#include "nn/layers/conv_padding.h"
#include "nn/layers/linear.h"
#include "nn/running_statistics.h"
#include "ops/vision.h"

namespace qn {

/// A convolution with a square kernel of odd size. `groups` is 1 or `in`.
struct ConvSpec {
  int64_t in = 0, out = 0, kernel = 1, stride = 1, groups = 1;
  ConvPadding padding = ConvPadding::symmetric;

  /// Of images [batch, height, width, in].
  ConvShape shape_for(const Shape& images) const;
  /// The group of its weight: depthwise, pointwise (a kernel of one pixel) or conv.
  const char* group() const;
};

struct Convolution {
  ConvSpec spec;
  Weight* weight = nullptr;  ///< [out, in / groups, kernel, kernel]
  ActivationPoint* input = nullptr;
  ActivationPoint* output = nullptr;

  /// Weight `own`.weight, which starts normal with variance 2 / (kernel^2 out / groups) (He et al. 2015, fan out);
  /// places `own`.input and `own`.output. Without `group`, that of the spec.
  static Convolution build(const Scope& scope, const std::string& own, const ConvSpec& spec,
                           const char* group = nullptr);

  /// [batch, height, width, in] -> [batch, out_height, out_width, out]. An epilogue is for passes that record no
  /// gradient.
  Var operator()(Tape& tape, const Var& x, const ConvEpilogue& epilogue = {}) const;
};

struct BatchNorm {
  Parameter *weight = nullptr, *bias = nullptr;
  ModuleBuffer *mean = nullptr, *var = nullptr;
  RunningStatistics::Entry* statistics = nullptr;
  const RunningStatistics* all = nullptr;  ///< of the module
  double eps = 1e-5;

  /// `own`.weight (ones), `own`.bias (zeros); running averages `own`.running_mean (zeros) and `own`.running_var (ones),
  /// of which every update replaces the share `momentum`.
  static BatchNorm build(const Scope& scope, const std::string& own, int64_t channels, double eps, double momentum);

  BatchNormArgs args(FusedActivation activation) const;
  Var operator()(Tape& tape, const Var& x, FusedActivation activation = {}) const;
};

/// activation(norm(conv(x))).
struct ConvNorm {
  Convolution conv;
  BatchNorm norm;
  FusedActivation activation;

  Var operator()(Tape& tape, const Var& x) const;
};

}  // namespace qn
