// What training does to pictures at random.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/random.h"
#include "data/image.h"
#include "data/image_transform.h"

namespace qn {

enum class TrainingCrop {
  center,          ///< as evaluation
  random_resized,  ///< a part of random area and shape, resized to the input (Inception's; torchvision)
  padded           ///< the evaluation's square with black pixels around it, a random window of its size (CIFAR)
};
template <>
struct EnumNames<TrainingCrop> {
  static constexpr EnumName<TrainingCrop> kAll[] = {{TrainingCrop::center, "center"},
                                                    {TrainingCrop::random_resized, "random_resized"},
                                                    {TrainingCrop::padded, "padded"}};
};

/// The defaults change nothing. What is done is done in this order; RandAugment is Cubuk et al. (2020) with the changes
/// and strengths of torchvision's.
struct ImageAugmentation {
  TrainingCrop crop = TrainingCrop::center;
  double min_area = 0.08;
  int64_t padding = 4;
  double flip = 0;
  int64_t randaugment_ops = 0;        ///< changes that RandAugment makes
  int64_t randaugment_magnitude = 9;  ///< of 30
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;

  bool jitters() const { return brightness > 0 || contrast > 0 || saturation > 0 || hue > 0; }
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// What an image is augmented by: a function of the run's seed, the epoch and the item, nothing else.
RandomKey augmentation_key(uint64_t seed, int64_t epoch, int64_t item);

/// A training input, [size, size], before its levels are scaled.
Image augmented_square(const ImageView& image, const ImageTransform& transform, const ImageAugmentation& augmentation,
                       const RandomKey& key);

}  // namespace qn
