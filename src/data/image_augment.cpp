#include "data/image_augment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/image_ops.h"
#include "data/random_draws.h"

namespace qn {
namespace {

constexpr int64_t kMostMagnitude = 30;

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

/// Levels that become about 0: what a network takes for nothing.
std::array<uint8_t, 3> neutral_levels(const ImageTransform& transform) {
  std::array<uint8_t, 3> levels{};
  for (size_t c = 0; c < 3; ++c)
    levels[c] =
        static_cast<uint8_t>(std::lround(std::clamp(transform.mean[transform.mean.size() == 1 ? 0 : c], 0., 255.)));
  return levels;
}

/// One of RandAugment's 14 changes; `strength` is 0 to 1.
void random_change(Image& image, double strength, const std::array<uint8_t, 3>& fill, RandomDraws& draws) {
  const int64_t change = draws.below(14);
  const double sign = draws.uniform() < 0.5 ? -1 : 1;
  const auto shift = [&](int64_t side) { return std::trunc(sign * strength * 150 / 331 * static_cast<double>(side)); };
  switch (change) {
    case 0:
      return;
    case 1:
      image = warped(image, {1, sign * 0.3 * strength, 0, 0, 1, 0}, fill);
      return;
    case 2:
      image = warped(image, {1, 0, 0, sign * 0.3 * strength, 1, 0}, fill);
      return;
    case 3:
      image = warped(image, {1, 0, shift(image.width), 0, 1, 0}, fill);
      return;
    case 4:
      image = warped(image, {1, 0, 0, 0, 1, shift(image.height)}, fill);
      return;
    case 5:
      image = warped(image, rotation(sign * 30 * strength, image.height, image.width), fill);
      return;
    case 6:
      return adjust_brightness(image, 1 + sign * 0.9 * strength);
    case 7:
      return adjust_saturation(image, 1 + sign * 0.9 * strength);
    case 8:
      return adjust_contrast(image, 1 + sign * 0.9 * strength);
    case 9:
      return adjust_sharpness(image, 1 + sign * 0.9 * strength);
    case 10:
      return posterize(image, 8 - static_cast<int>(std::nearbyint(4 * strength)));
    case 11:
      return solarize(image, 255 * (1 - strength));
    case 12:
      return stretch_levels(image);
    default:
      return equalize_levels(image);
  }
}

/// Brightness, contrast, saturation and hue in random order, each by a random amount (torchvision's ColorJitter).
void jitter_colours(Image& image, const ImageAugmentation& a, RandomDraws& draws) {
  std::array<int, 4> order = {0, 1, 2, 3};
  for (size_t i = 3; i > 0; --i)
    std::swap(order[i], order[static_cast<size_t>(draws.below(static_cast<int64_t>(i) + 1))]);
  const auto factor = [&](double range) { return draws.between(std::max(0.0, 1 - range), 1 + range); };
  for (const int what : order) {
    if (what == 0 && a.brightness > 0) adjust_brightness(image, factor(a.brightness));
    if (what == 1 && a.contrast > 0) adjust_contrast(image, factor(a.contrast));
    if (what == 2 && a.saturation > 0) adjust_saturation(image, factor(a.saturation));
    if (what == 3 && a.hue > 0) shift_hue(image, draws.between(-a.hue, a.hue));
  }
}

}  // namespace

void ImageAugmentation::visit(ConfigVisitor& v) {
  v.choice("crop", crop,
           "center: as evaluation; random_resized: a part of random area and shape, resized to the input; padded: the "
           "evaluation's square, moved at random by up to `padding` pixels");
  v.field("min_area", min_area, "random_resized: the smallest share of a picture's area");
  v.field("padding", padding, "padded: how many pixels are black at most, on each side");
  v.field("flip", flip, "probability that left and right are exchanged");
  v.field("randaugment_ops", randaugment_ops,
          "so many changes drawn at random out of 14 (sheared, moved, turned, brightness, sharpness, ...), as "
          "torchvision's "
          "RandAugment (0: none; usual: 2)");
  v.field("randaugment_magnitude", randaugment_magnitude, "how strong these are, of 30");
  v.field("brightness", brightness, "colour jitter: brightness is multiplied by 1 - this to 1 + this");
  v.field("contrast", contrast, "colour jitter: contrast, likewise");
  v.field("saturation", saturation, "colour jitter: saturation, likewise");
  v.field("hue", hue, "colour jitter: hue is shifted by up to this share of the circle, either way");
}

void ImageAugmentation::validate(const ConfigChecker& c) const {
  c.check(min_area > 0 && min_area <= 1, "min_area", "must be above 0 and at most 1, got {}", min_area);
  c.check(padding >= 0 && padding <= 1024, "padding", "must be in 0 to 1024, got {}", padding);
  c.check(flip >= 0 && flip <= 1, "flip", "must be in 0 to 1, got {}", flip);
  c.check(randaugment_ops >= 0 && randaugment_ops <= 16, "randaugment_ops", "must be in 0 to 16, got {}",
          randaugment_ops);
  c.check(randaugment_magnitude >= 0 && randaugment_magnitude <= kMostMagnitude, "randaugment_magnitude",
          "must be in 0 to {}, got {}", kMostMagnitude, randaugment_magnitude);
  for (const auto& [name, value] :
       {std::pair{"brightness", brightness}, {"contrast", contrast}, {"saturation", saturation}})
    c.check(value >= 0 && value <= 10, name, "must be in 0 to 10, got {}", value);
  c.check(hue >= 0 && hue <= 0.5, "hue", "must be in 0 to 0.5, got {}", hue);
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
  const double strength = static_cast<double>(augmentation.randaugment_magnitude) / kMostMagnitude;
  for (int64_t i = 0; i < augmentation.randaugment_ops; ++i)
    random_change(square, strength, neutral_levels(transform), draws);
  if (augmentation.jitters()) jitter_colours(square, augmentation, draws);
  return square;
}

}  // namespace qn
