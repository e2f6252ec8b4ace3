// Resizing with antialias, bit for bit as Pillow's Image.resize() (libImaging/Resample.c).
#pragma once

#include <cstdint>

#include "core/enum_names.h"
#include "data/image.h"

namespace qn {

enum class ResizeFilter { bilinear, bicubic, lanczos };
template <>
struct EnumNames<ResizeFilter> {
  static constexpr EnumName<ResizeFilter> kAll[] = {
      {ResizeFilter::bilinear, "bilinear"}, {ResizeFilter::bicubic, "bicubic"}, {ResizeFilter::lanczos, "lanczos"}};
};

/// [height, width] with the same channels. Where the picture gets smaller the filter gets wider, so nothing is skipped.
/// First along rows, then along columns, each rounded to 8 bits.
Image resize_image(const ImageView& image, int64_t height, int64_t width, ResizeFilter filter);

}  // namespace qn
