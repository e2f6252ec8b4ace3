#include "models/resnet.h"

#include <cstring>

#include "ops/host_access.h"

namespace qn {
namespace {

constexpr int64_t kStages = 3, kConvolutionsPerBlock = 2;

}  // namespace

ResNet::ResNet(const ModelConfig& config, const ImageClasses& classes) {
  const Scope root = this->root();
  const auto conv_norm = [&](const Scope& scope, int number, const ConvSpec& spec, FusedActivation activation) {
    return ConvNorm{
        Convolution::build(scope, fmt::format("conv{}", number), spec),
        BatchNorm::build(scope, fmt::format("bn{}", number), spec.out, config.norm_eps, config.norm_momentum),
        activation};
  };
  int64_t in = config.embed_dim;
  stem_ = conv_norm(root, 1, {.in = classes.channels, .out = in, .kernel = 3}, Activation::relu);
  const int64_t per_stage = (config.layers - 2) / (kStages * kConvolutionsPerBlock);
  for (int64_t s = 0; s < kStages; ++s) {
    const int64_t out = config.embed_dim << s;
    for (int64_t i = 0; i < per_stage; ++i, in = out) {
      const Scope scope = root.in(fmt::format("layer{}.{}", s + 1, i));
      const int64_t stride = s > 0 && i == 0 ? 2 : 1;
      Block& block = blocks_.emplace_back();
      block.conv1 = conv_norm(scope, 1, {.in = in, .out = out, .kernel = 3, .stride = stride}, Activation::relu);
      block.conv2 = conv_norm(scope, 2, {.in = out, .out = out, .kernel = 3}, {});
      block.same = stride == 1 && in == out;
    }
  }
  classifier_ = Linear::build(root, "fc", groups::kClassifier, classes.classes, in, init::fan_in(in), init::zeros());
}

/// [out, in, 1, 1]: input channel i is output channel i + (out - in) / 2, the others are zero.
Var ResNet::Block::widening(Tape& tape) const {
  const ConvSpec& spec = conv1.conv.spec;
  if (widening_memory != tape.k.memory || widening_weight.view().dtype != tape.parameter_dtype()) {
    widening_weight = OwnedTensor({spec.out, spec.in, 1, 1}, tape.parameter_dtype(), *tape.k.memory);
    widening_memory = tape.k.memory;
    write_on_host(tape.k, widening_weight.view(), [&](const Tensor& host) {
      std::memset(host.data, 0, host.bytes());
      for (int64_t i = 0; i < spec.in; ++i) {
        const int64_t at = (i + (spec.out - spec.in) / 2) * spec.in + i;
        if (host.dtype == DType::f64)
          host.as<double>()[at] = 1.0;
        else
          host.as<float>()[at] = 1.0f;
      }
    });
  }
  return cast_to_compute(tape, {widening_weight.view(), nullptr});
}

Var ResNet::run(Tape& tape, const Block& block, const Var& x) const {
  const ConvSpec& spec = block.conv1.conv.spec;
  const Var shortcut =
      block.same ? x
                 : conv2d(tape, x, block.widening(tape),
                          ConvSpec{.in = spec.in, .out = spec.out, .stride = spec.stride}.shape_for(x.value.shape));
  const Var sum = drop_path(tape, shortcut, block.conv2(tape, block.conv1(tape, x)), {});
  return activation_dropout(tape, sum, {}, Activation::relu, {});
}

Var ResNet::logits(Tape& tape, const Var& images) {
  Var x = stem_(tape, images);
  for (const Block& block : blocks_) x = run(tape, block, x);
  return classifier_(tape, average_pool(tape, x));
}

}  // namespace qn
