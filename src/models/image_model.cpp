#include "models/image_model.h"

#include "models/efficientnet.h"
#include "models/resnet.h"

namespace qn {

std::unique_ptr<ImageModel> make_image_model(const ModelConfig& config, const ImageClasses& classes) {
  QN_CHECK(classes.channels >= 1 && classes.classes >= 2, "an image network for {} channels and {} classes",
           classes.channels, classes.classes);
  if (config.type == ModelType::efficientnet)
    return std::make_unique<EfficientNet>(EfficientNetShape::of(config), classes);
  QN_ASSERT(config.type == ModelType::resnet);
  return std::make_unique<ResNet>(config, classes);
}

}  // namespace qn
