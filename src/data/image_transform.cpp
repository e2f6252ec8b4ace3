#include "data/image_transform.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/image_file.h"

namespace qn {
namespace {

constexpr int64_t kMostSize = 4096;

/// Python's round(excess / 2).
int64_t half_of(int64_t excess) { return static_cast<int64_t>(std::nearbyint(static_cast<double>(excess) / 2)); }

ImageView middle(const ImageView& image, int64_t side) {
  return image.part(half_of(image.height - side), half_of(image.width - side), side, side);
}

/// The longer side of a picture whose shorter one becomes `shorter`.
int64_t scaled(int64_t side, int64_t other, int64_t shorter) { return std::max<int64_t>(1, side * shorter / other); }

}  // namespace

void ImageTransform::visit(ConfigVisitor& v) {
  v.field("size", size, "height and width of the network's input, in pixels");
  v.field("crop", crop, "share of a picture's shorter side that evaluation sees, from its middle");
  v.choice("order", order,
           "crop_first: that square is cut out and resized to `size`; resize_first: the shorter side becomes size / "
           "crop, then `size` pixels are cut out");
  v.choice("filter", filter, "what resizing weighs pixels by; always with antialias, as Pillow");
  v.field("mean", mean,
          "what is subtracted from levels of 0 to 255: one number, or one a channel (ImageNet: 123.675, 116.28, "
          "103.53)");
  v.field("std", std, "what they are divided by then (ImageNet: 58.395, 57.12, 57.375)");
}

void ImageTransform::validate(const ConfigChecker& c) const {
  c.check(size >= 1 && size <= kMostSize, "size", "must be in 1 to {}, got {}", kMostSize, size);
  c.check(crop >= 0.1 && crop <= 1, "crop", "must be in 0.1 to 1, got {}", crop);
  const auto count_fits = [](const std::vector<double>& values) { return values.size() == 1 || values.size() == 3; };
  c.check(count_fits(mean), "mean", "must have 1 or 3 numbers, got {}", mean.size());
  c.check(count_fits(std), "std", "must have 1 or 3 numbers, got {}", std.size());
  c.check(std::all_of(mean.begin(), mean.end(), [](double m) { return std::isfinite(m); }), "mean", "must be finite");
  c.check(std::all_of(std.begin(), std.end(), [](double s) { return s > 0 && std::isfinite(s); }), "std",
          "must be positive");
}

Image center_square(const ImageView& image, const ImageTransform& transform) {
  const int64_t size = transform.size, shorter = std::min(image.height, image.width);
  if (transform.order == CropOrder::crop_first) {
    const auto side = std::max<int64_t>(1, static_cast<int64_t>(transform.crop * static_cast<double>(shorter)));
    return resize_image(middle(image, side), size, size, transform.filter);
  }
  const auto to = static_cast<int64_t>(static_cast<double>(size) / transform.crop);
  const Image resized =
      resize_image(image, scaled(image.height, shorter, to), scaled(image.width, shorter, to), transform.filter);
  return resize_image(middle(resized.view(), size), size, size, transform.filter);
}

LevelScale::LevelScale(const ImageTransform& transform, int64_t channels) {
  const auto of = [&](const std::vector<double>& values, const char* name, int64_t c) {
    QN_CHECK_USAGE(values.size() == 1 || std::ssize(values) == channels,
                   "`{}` has {} numbers, but pictures have {} channel(s): give one number for all, or one a channel",
                   name, values.size(), channels);
    return values[values.size() == 1 ? 0 : static_cast<size_t>(c)];
  };
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = of(transform.mean, "mean", c), std = of(transform.std, "std", c);
    for (int level = 0; level < 256; ++level) table_.push_back(static_cast<float>((level - mean) / std));
  }
}

void LevelScale::apply(const ImageView& image, float* out) const {
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* in = image.row(y);
    for (int64_t x = 0; x < image.width; ++x)
      for (int64_t c = 0; c < image.channels; ++c) *out++ = table_[static_cast<size_t>(256 * c + *in++)];
  }
}

std::vector<float> load_image(const std::filesystem::path& path, int64_t channels, const ImageTransform& transform) {
  const LevelScale scale(transform, channels);
  const Image square = center_square(read_image(path, channels).view(), transform);
  std::vector<float> values(square.pixels.size());
  scale.apply(square.view(), values.data());
  return values;
}

}  // namespace qn
