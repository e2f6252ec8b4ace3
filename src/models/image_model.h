// Networks that classify images.
#pragma once

#include <cstdint>
#include <memory>

#include "models/model_config.h"
#include "nn/module.h"

namespace qn {

/// What the data decide of an image network.
struct ImageClasses {
  int64_t channels = 3;  ///< of an image: 3 of colours, 1 of greys
  int64_t classes = 1000;
};

class ImageModel : public Module {
 public:
  /// Of every class: images [batch, height, width, channels] -> [batch, classes]. Any size that leaves a pixel will do.
  virtual Var logits(Tape& tape, const Var& images) = 0;
};

/// The network of a configuration of type efficientnet or resnet; parameters have shapes but no memory yet.
std::unique_ptr<ImageModel> make_image_model(const ModelConfig& config, const ImageClasses& classes);

}  // namespace qn
