// ResNet for images of 32 pixels (He et al. 2015, section 4.2): 6 n + 2 layers in three stages of 16, 32 and 64
// channels, shortcuts without parameters.
#pragma once

#include <vector>

#include "models/image_model.h"
#include "nn/layers/convolution.h"

namespace qn {

class ResNet : public ImageModel {
 public:
  ResNet(const ModelConfig& config, const ImageClasses& classes);
  Var logits(Tape& tape, const Var& images) override;

 private:
  struct Block {
    ConvNorm conv1, conv2;
    bool same = true;  ///< as many pixels and channels come out as go in
    /// What makes a shortcut of other channels, as a convolution's constant weight.
    Var widening(Tape& tape) const;
    mutable OwnedTensor widening_weight;
    mutable const Memory* widening_memory = nullptr;
  };
  Var run(Tape& tape, const Block& block, const Var& x) const;

  ConvNorm stem_;
  std::vector<Block> blocks_;
  Linear classifier_;
};

}  // namespace qn
