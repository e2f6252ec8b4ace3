// From a picture of any size to a network's input: what evaluation and `predict` see. What training does to pictures
// beyond that is in image_augment.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/config.h"
#include "data/image.h"
#include "data/image_resize.h"

namespace qn {

/// How the middle of a picture becomes the input.
enum class CropOrder {
  crop_first,   ///< the square of crop * the shorter side, then resized to the input (TensorFlow's EfficientNets)
  resize_first  ///< the shorter side to size / crop, then a square of the input's size cut out (torchvision, timm)
};
template <>
struct EnumNames<CropOrder> {
  static constexpr EnumName<CropOrder> kAll[] = {{CropOrder::crop_first, "crop_first"},
                                                 {CropOrder::resize_first, "resize_first"}};
};

/// Belongs to a model: it has to be the same wherever the model runs.
struct ImageTransform {
  int64_t size = 224;
  double crop = 0.875;
  CropOrder order = CropOrder::crop_first;
  ResizeFilter filter = ResizeFilter::bicubic;
  std::vector<double> mean = {127.5}, std = {127.5};  ///< in levels; one for all channels, or one each

  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
  bool operator==(const ImageTransform&) const = default;
};

/// The square that an evaluation sees, [size, size]. A picture that has this size already stays as it is where crop
/// is 1. Squares with as much on the left as on the right; an odd pixel as in torchvision (round half to even).
Image center_square(const ImageView& image, const ImageTransform& transform);

/// Levels to (level - mean) / std, channels innermost.
class LevelScale {
 public:
  /// Throws UsageError where mean and std are for another number of channels.
  LevelScale(const ImageTransform& transform, int64_t channels);
  /// `out` [height, width, channels].
  void apply(const ImageView& image, float* out) const;

 private:
  std::vector<float> table_;  // [channels, 256]
};

/// The input of one file, [size, size, channels]: for `predict IMAGE...`. Throws qn::Error naming the file when it
/// cannot be read or is no picture.
std::vector<float> load_image(const std::filesystem::path& path, int64_t channels, const ImageTransform& transform);

}  // namespace qn
