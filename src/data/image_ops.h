// Changes of colour and shape that augmentation makes, with Pillow's arithmetic (ImageEnhance, ImageOps, Image.rotate,
// Image.transform). Grey pictures have no saturation and no hue.
#pragma once

#include <array>
#include <cstdint>

#include "data/image.h"

namespace qn {

// Factor 1 changes nothing; 0 gives a black, a uniformly grey, a grey, a blurred picture; all in place.
void adjust_brightness(Image& image, double factor);
void adjust_contrast(Image& image, double factor);
void adjust_saturation(Image& image, double factor);
void adjust_sharpness(Image& image, double factor);
/// `turn`: -0.5 to 0.5 of the circle of hues.
void shift_hue(Image& image, double turn);

/// Keeps the upper `bits` of every level, 1 to 8.
void posterize(Image& image, int bits);
/// Inverts levels from `threshold` on.
void solarize(Image& image, double threshold);
/// Stretches every channel to 0 to 255.
void stretch_levels(Image& image);
/// Makes every level of a channel about as frequent.
void equalize_levels(Image& image);

/// Where a pixel of the result comes from: (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]), at centres of pixels.
using AffineMap = std::array<double, 6>;
/// Bilinear; what lies outside gets the levels `fill`, one a channel.
Image warped(const Image& image, const AffineMap& map, const std::array<uint8_t, 3>& fill);
/// Around the middle, counter-clockwise.
AffineMap rotation(double degrees, int64_t height, int64_t width);

}  // namespace qn
