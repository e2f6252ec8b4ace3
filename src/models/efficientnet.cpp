#include "models/efficientnet.h"

#include <cmath>

namespace qn {
namespace {

constexpr EfficientNetStage kPaper[] = {{1, 3, 1, 16, 1},  {6, 3, 2, 24, 2},  {6, 5, 2, 40, 2}, {6, 3, 2, 80, 3},
                                        {6, 5, 1, 112, 3}, {6, 5, 2, 192, 4}, {6, 3, 1, 320, 1}};
constexpr int64_t kStem = 32, kHead = 1280;

/// A multiple of 8 near scale * channels that is not smaller by more than a tenth.
int64_t scaled(int64_t channels, double scale) {
  constexpr int64_t kDivisor = 8;
  const double wanted = static_cast<double>(channels) * scale;
  const auto near = static_cast<int64_t>(wanted + kDivisor / 2.0) / kDivisor * kDivisor;
  const int64_t result = std::max(kDivisor, near);
  return static_cast<double>(result) < 0.9 * wanted ? result + kDivisor : result;
}

}  // namespace

EfficientNetShape EfficientNetShape::of(const ModelConfig& config) {
  const bool lite = !config.squeeze;
  EfficientNetShape shape{.stem = lite ? kStem : scaled(kStem, config.width),
                          .stem_stride = config.stem_stride,
                          .head = lite ? kHead : scaled(kHead, config.width),
                          .stages = {},
                          .squeeze = config.squeeze,
                          .padding = config.padding,
                          .activation = config.activation,
                          .norm_eps = config.norm_eps,
                          .norm_momentum = config.norm_momentum,
                          .dropout = config.dropout,
                          .drop_path = config.drop_path};
  for (EfficientNetStage stage : kPaper) {
    const bool fixed = lite && (stage == std::begin(kPaper)[0] || stage == std::end(kPaper)[-1]);
    stage.channels = scaled(stage.channels, config.width);
    if (!fixed) stage.layers = static_cast<int64_t>(std::ceil(static_cast<double>(stage.layers) * config.depth));
    shape.stages.push_back(stage);
  }
  return shape;
}

EfficientNet::EfficientNet(const EfficientNetShape& shape, const ImageClasses& classes) : shape_(shape) {
  const Scope root = this->root();
  const auto conv_norm = [&](const Scope& scope, const char* conv, const char* norm, ConvSpec spec,
                             FusedActivation activation) {
    spec.padding = shape.padding;
    return ConvNorm{Convolution::build(scope, conv, spec),
                    BatchNorm::build(scope, norm, spec.out, shape.norm_eps, shape.norm_momentum), activation};
  };
  stem_ = conv_norm(root, "conv_stem", "bn1",
                    {.in = classes.channels, .out = shape.stem, .kernel = 3, .stride = shape.stem_stride},
                    shape.activation);
  int64_t count = 0;
  for (const EfficientNetStage& stage : shape.stages) count += stage.layers;
  int64_t in = shape.stem;
  for (size_t s = 0; s < shape.stages.size(); ++s) {
    const EfficientNetStage& stage = shape.stages[s];
    for (int64_t i = 0; i < stage.layers; ++i, in = stage.channels) {
      Block block = build_block(root.in(fmt::format("blocks.{}.{}", s, i)), stage, in, i == 0 ? stage.stride : 1);
      block.site = blocks_.size();
      block.drop = shape.drop_path * static_cast<double>(blocks_.size()) / static_cast<double>(count);
      blocks_.push_back(std::move(block));
    }
  }
  head_ = conv_norm(root, "conv_head", "bn2", {.in = in, .out = shape.head}, shape.activation);
  classifier_ = Linear::build(root, "classifier", groups::kClassifier, classes.classes, shape.head,
                              init::uniform(1.0 / std::sqrt(static_cast<double>(classes.classes))), init::zeros());
}

/// timm's names: with an expansion conv_pw, conv_dw, conv_pwl; without one conv_dw, conv_pw.
EfficientNet::Block EfficientNet::build_block(const Scope& scope, const EfficientNetStage& stage, int64_t in,
                                              int64_t stride) const {
  const bool expands = stage.expand != 1;
  const int64_t inner = in * stage.expand;
  const auto conv_norm = [&](const char* conv, const char* norm, ConvSpec spec, FusedActivation activation) {
    spec.padding = shape_.padding;
    return ConvNorm{Convolution::build(scope, conv, spec),
                    BatchNorm::build(scope, norm, spec.out, shape_.norm_eps, shape_.norm_momentum), activation};
  };
  Block block;
  if (expands) block.expand = conv_norm("conv_pw", "bn1", {.in = in, .out = inner}, shape_.activation);
  block.depthwise = conv_norm("conv_dw", expands ? "bn2" : "bn1",
                              {.in = inner, .out = inner, .kernel = stage.kernel, .stride = stride, .groups = inner},
                              shape_.activation);
  if (shape_.squeeze) {
    const Scope se = scope.in("se");
    const int64_t squeezed = std::max<int64_t>(1, in / 4);
    const auto conv = [&](const char* own, int64_t from, int64_t to) {
      return Convolution::build(se, own, {.in = from, .out = to}, groups::kSqueeze);
    };
    block.squeeze = Squeeze{conv("conv_reduce", inner, squeezed), conv("conv_expand", squeezed, inner),
                            se.parameter("conv_reduce.bias", {squeezed}, init::zeros()),
                            se.parameter("conv_expand.bias", {inner}, init::zeros())};
  }
  block.project =
      conv_norm(expands ? "conv_pwl" : "conv_pw", expands ? "bn3" : "bn2", {.in = inner, .out = stage.channels}, {});
  block.shortcut = stride == 1 && in == stage.channels;
  return block;
}

/// x * sigmoid(expand(act(reduce(mean over pixels of x)))).
Var EfficientNet::Squeeze::operator()(Tape& tape, const Var& x, Activation activation) const {
  Var mean = average_pool(tape, x);
  mean.value = mean.value.reshaped({mean.value.rows(), 1, 1, mean.value.cols()});
  const Var inner = activation_dropout(tape, reduce(tape, mean), reduce_bias->var(tape), activation, {});
  const Var s = activation_dropout(tape, expand(tape, inner), expand_bias->var(tape), Activation::sigmoid, {});
  return scale_channels(tape, x, s);
}

Var EfficientNet::run(Tape& tape, const Block& block, const Var& x) const {
  Var y = block.expand ? (*block.expand)(tape, x) : x;
  y = block.depthwise(tape, y);
  if (block.squeeze) y = (*block.squeeze)(tape, y, shape_.activation);
  y = block.project(tape, y);
  return block.shortcut ? drop_path(tape, x, y, {.p = block.drop, .site = block.site}) : y;
}

Var EfficientNet::logits(Tape& tape, const Var& images) { return logits(tape, images, nullptr); }

Var EfficientNet::logits(Tape& tape, const Var& images, std::vector<Tensor>* inner_states) {
  const auto show = [&](const Var& x) {
    if (inner_states != nullptr) inner_states->push_back(x.value);
  };
  Var x = stem_(tape, images);
  show(x);
  for (const Block& block : blocks_) {
    x = run(tape, block, x);
    show(x);
  }
  x = head_(tape, x);
  show(x);
  const Var features = dropout(tape, average_pool(tape, x), {.p = shape_.dropout, .site = blocks_.size()});
  return classifier_(tape, features);
}

}  // namespace qn
