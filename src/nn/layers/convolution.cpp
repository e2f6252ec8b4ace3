#include "nn/layers/convolution.h"

#include <cmath>

namespace qn {

ConvShape ConvSpec::shape_for(const Shape& images) const {
  QN_ASSERT(images.rank() == 4 && images[3] == in, "images {} for {} channels", images.to_string(), in);
  ConvShape shape{.batch = images[0],
                  .height = images[1],
                  .width = images[2],
                  .in = in,
                  .out = out,
                  .groups = groups,
                  .kernel_h = kernel,
                  .kernel_w = kernel,
                  .stride = stride};
  if (padding == ConvPadding::same)
    shape.pad(same_padding(shape.height, kernel, stride), same_padding(shape.width, kernel, stride));
  else
    shape.pad(torch_padding(kernel), torch_padding(kernel));
  return shape;
}

const char* ConvSpec::group() const {
  if (groups > 1) return groups::kDepthwise;
  return kernel == 1 ? groups::kPointwise : groups::kConv;
}

Convolution Convolution::build(const Scope& scope, const std::string& own, const ConvSpec& spec, const char* group) {
  QN_ASSERT(spec.kernel % 2 == 1 && spec.in % spec.groups == 0 && spec.out % spec.groups == 0);
  const auto fan_out = static_cast<double>(spec.kernel * spec.kernel * spec.out / spec.groups);
  return {
      spec,
      scope.weight(own + ".weight", group != nullptr ? group : spec.group(), WeightKind::conv,
                   {spec.out, spec.in / spec.groups, spec.kernel, spec.kernel}, init::normal(std::sqrt(2.0 / fan_out))),
      scope.activation(own + ".input"), scope.activation(own + ".output")};
}

Var Convolution::operator()(Tape& tape, const Var& x, const ConvEpilogue& epilogue) const {
  const ActivationQuantizer* quantizer = input->quantizer();
  const Var y = weight->conv2d(tape, (*input)(tape, x), spec.shape_for(x.value.shape), epilogue, quantizer);
  return (*output)(tape, y);
}

BatchNorm BatchNorm::build(const Scope& scope, const std::string& own, int64_t channels, double eps, double momentum) {
  ModuleBuffer* mean = scope.buffer(own + ".running_mean", {channels}, 0.0);
  ModuleBuffer* var = scope.buffer(own + ".running_var", {channels}, 1.0);
  Parameter* weight = scope.parameter(own + ".weight", {channels}, init::ones());
  Parameter* bias = scope.parameter(own + ".bias", {channels}, init::zeros());
  RunningStatistics& all = scope.module().statistics();
  return {weight, bias, mean, var, all.add({weight, bias, mean, var, eps}, momentum), &all, eps};
}

BatchNormArgs BatchNorm::args(FusedActivation activation) const {
  BatchNormArgs args;
  args.eps = eps;
  args.running_mean = mean->value.view();
  args.running_var = var->value.view();
  args.batch_sums = statistics->sums;
  args.activation = activation;
  args.frozen = all->frozen();
  return args;
}

Var BatchNorm::operator()(Tape& tape, const Var& x, FusedActivation activation) const {
  statistics->values = x.value.rows();
  return batch_norm(tape, x, weight->var(tape), bias->var(tape), args(activation));
}

/// Outside of training the norm is a factor and a sum that the convolution does on its way; not where the convolution's
/// own result is quantized in between, or its input, of which a product of codes may be made.
Var ConvNorm::operator()(Tape& tape, const Var& x) const {
  if (tape.batch_statistics() || tape.recording() || conv.input->quantizer() != nullptr ||
      conv.output->quantizer() != nullptr)
    return norm(tape, conv(tape, x), activation);
  return conv(tape, x, fold_batch_norm(tape, norm.weight->var(tape), norm.bias->var(tape), norm.args(activation)));
}

}  // namespace qn
