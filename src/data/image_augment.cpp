#include "data/image_augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "data/random_draws.h"

namespace qn {
namespace {

/// A part of min_area to 1 of the area and 3/4 to 4/3 of a square's shape; after ten misses the middle (torchvision's
/// RandomResizedCrop).
ImageView random_part(const ImageView& image, double min_area, RandomDraws& draws) {
  const double area = static_cast<double>(image.height * image.width);
  constexpr double kNarrow = 3.0 / 4, kWide = 4.0 / 3;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double part = area * draws.between(min_area, 1);
    const double shape = std::exp(draws.between(std::log(kNarrow), std::log(kWide)));
    const auto width = static_cast<int64_t>(std::nearbyint(std::sqrt(part * shape)));
    const auto height = static_cast<int64_t>(std::nearbyint(std::sqrt(part / shape)));
    if (width < 1 || height < 1 || width > image.width || height > image.height) continue;
    const int64_t top = draws.below(image.height - height + 1), left = draws.below(image.width - width + 1);
    return image.part(top, left, height, width);
  }
  const double shape = static_cast<double>(image.width) / static_cast<double>(image.height);
  int64_t height = image.height, width = image.width;
  if (shape < kNarrow) height = static_cast<int64_t>(std::nearbyint(static_cast<double>(width) / kNarrow));
  if (shape > kWide) width = static_cast<int64_t>(std::nearbyint(static_cast<double>(height) * kWide));
  return image.part((image.height - height) / 2, (image.width - width) / 2, height, width);
}

/// `image` moved by up to `padding` pixels along both axes; what comes in is black.
Image shifted(const Image& image, int64_t padding, RandomDraws& draws) {
  const int64_t down = draws.below(2 * padding + 1) - padding, right = draws.below(2 * padding + 1) - padding;
  Image out(image.height, image.width, image.channels);
  const int64_t cols = image.width - std::abs(right);
  for (int64_t y = std::max<int64_t>(0, down); y < std::min(image.height, image.height + down); ++y)
    if (cols > 0)
      std::memcpy(out.row(y) + std::max<int64_t>(0, right) * image.channels,
                  image.view().row(y - down) + std::max<int64_t>(0, -right) * image.channels,
                  static_cast<size_t>(cols * image.channels));
  return out;
}

void mirror(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* row = image.row(y);
    for (int64_t left = 0, right = image.width - 1; left < right; ++left, --right)
      std::swap_ranges(row + left * image.channels, row + (left + 1) * image.channels, row + right * image.channels);
  }
}

Image cropped(const ImageView& image, const ImageTransform& transform, const ImageAugmentation& augmentation,
              RandomDraws& draws) {
  switch (augmentation.crop) {
    case TrainingCrop::center:
      return center_square(image, transform);
    case TrainingCrop::random_resized:
      return resize_image(random_part(image, augmentation.min_area, draws), transform.size, transform.size,
                          transform.filter);
    case TrainingCrop::padded:
      return shifted(center_square(image, transform), augmentation.padding, draws);
  }
  QN_ASSERT(false, "unknown crop");
}

}  // namespace

void ImageAugmentation::visit(ConfigVisitor& v) {
  v.choice("crop", crop,
           "center: as evaluation; random_resized: a part of random area and shape, resized to the input; padded: the "
           "evaluation's square, moved at random by up to `padding` pixels");
  v.field("min_area", min_area, "random_resized: the smallest share of a picture's area");
  v.field("padding", padding, "padded: how many pixels are black at most, on each side");
  v.field("flip", flip, "probability that left and right are exchanged");
}

void ImageAugmentation::validate(const ConfigChecker& c) const {
  c.check(min_area > 0 && min_area <= 1, "min_area", "must be above 0 and at most 1, got {}", min_area);
  c.check(padding >= 0 && padding <= 1024, "padding", "must be in 0 to 1024, got {}", padding);
  c.check(flip >= 0 && flip <= 1, "flip", "must be in 0 to 1, got {}", flip);
}

RandomKey augmentation_key(uint64_t seed, int64_t epoch, int64_t item) {
  return {.seed = seed,
          .purpose = Purpose::data,
          .id = hash_name("augmentation") + static_cast<uint64_t>(item),
          .update = static_cast<uint32_t>(epoch),
          .micro_batch = 0};
}

Image augmented_square(const ImageView& image, const ImageTransform& transform, const ImageAugmentation& augmentation,
                       const RandomKey& key) {
  RandomDraws draws(key);
  Image square = cropped(image, transform, augmentation, draws);
  if (augmentation.flip > 0 && draws.uniform() < augmentation.flip) mirror(square);
  return square;
}

}  // namespace qn
