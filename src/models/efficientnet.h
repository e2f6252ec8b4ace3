// EfficientNet and EfficientNet-Lite (Tan and Le 2019): inverted residual blocks with depthwise convolutions, squeeze
// and excitation, and stochastic depth. Names of parameters are timm's.
#pragma once

#include <optional>
#include <vector>

#include "models/image_model.h"
#include "nn/layers/convolution.h"

namespace qn {

/// A stage of blocks alike, the first of which has the stride and changes the number of channels.
struct EfficientNetStage {
  int64_t expand = 6;  ///< channels inside a block for each that goes in; 1: no expansion
  int64_t kernel = 3, stride = 1, channels = 16, layers = 1;
  bool operator==(const EfficientNetStage&) const = default;
};

/// All sizes of a network.
struct EfficientNetShape {
  int64_t stem = 32, stem_stride = 2, head = 1280;
  std::vector<EfficientNetStage> stages;
  bool squeeze = true;  ///< squeeze and excitation, to a quarter of a block's channels
  ConvPadding padding = ConvPadding::same;
  Activation activation = Activation::silu;
  double norm_eps = 1e-3, norm_momentum = 0.01;
  double dropout = 0.2;    ///< before the classifier
  double drop_path = 0.2;  ///< of the last block, did it count one more; rises from 0 with the block's number

  /// The paper's table 1, scaled by width (to multiples of 8, never down by more than a tenth) and depth; Lite does not
  /// scale stem, head, and the number of layers of the first and last stage.
  static EfficientNetShape of(const ModelConfig& config);
};

class EfficientNet : public ImageModel {
 public:
  EfficientNet(const EfficientNetShape& shape, const ImageClasses& classes);
  Var logits(Tape& tape, const Var& images) override;
  /// Images [batch, height, width, channels] behind the stem, every block and the head, for tests.
  Var logits(Tape& tape, const Var& images, std::vector<Tensor>* inner_states);

 private:
  struct Squeeze {
    Convolution reduce, expand;
    Parameter *reduce_bias, *expand_bias;
    Var operator()(Tape& tape, const Var& x, Activation activation) const;
  };
  struct Block {
    std::optional<ConvNorm> expand;
    ConvNorm depthwise;
    std::optional<Squeeze> squeeze;
    ConvNorm project;
    bool shortcut = false;
    double drop = 0.0;
    uint64_t site = 0;
  };
  Block build_block(const Scope& scope, const EfficientNetStage& stage, int64_t in, int64_t stride) const;
  Var run(Tape& tape, const Block& block, const Var& x) const;

  EfficientNetShape shape_;
  ConvNorm stem_, head_;
  std::vector<Block> blocks_;
  Linear classifier_;
};

}  // namespace qn
