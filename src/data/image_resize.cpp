#include "data/image_resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "core/error.h"

namespace qn {
namespace {

// Weights are integers with so many bits behind the point: sums of 8-bit levels then fit into 32 bits.
constexpr int kFraction = 32 - 8 - 2;

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

/// Keys' cubic convolution with a = -0.5.
double cubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos3(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Kernel {
  double (*weight)(double);
  double support;
};

Kernel kernel_of(ResizeFilter filter) {
  switch (filter) {
    case ResizeFilter::bilinear:
      return {triangle, 1.0};
    case ResizeFilter::bicubic:
      return {cubic, 2.0};
    case ResizeFilter::lanczos:
      return {lanczos3, 3.0};
  }
  QN_ASSERT(false, "unknown filter");
}

/// Which inputs an output is a weighted sum of.
struct Taps {
  int64_t first = 0, count = 0;
  size_t weights = 0;  ///< where they begin
};

/// One axis: what every output is made of.
struct Axis {
  std::vector<Taps> outputs;
  std::vector<int32_t> weights;

  Axis(int64_t in, int64_t out, ResizeFilter filter) {
    const Kernel kernel = kernel_of(filter);
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    const double stretch = std::max(scale, 1.0), support = kernel.support * stretch;
    std::vector<double> exact;
    for (int64_t i = 0; i < out; ++i) {
      const double center = (static_cast<double>(i) + 0.5) * scale;
      const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
      const int64_t end = std::min(in, static_cast<int64_t>(center + support + 0.5));
      exact.clear();
      double sum = 0;
      for (int64_t x = first; x < end; ++x) {
        exact.push_back(kernel.weight((static_cast<double>(x) - center + 0.5) * (1.0 / stretch)));
        sum += exact.back();
      }
      outputs.push_back({first, end - first, weights.size()});
      for (double w : exact) {
        if (sum != 0.0) w /= sum;
        weights.push_back(static_cast<int32_t>(w * (1 << kFraction) + (w < 0 ? -0.5 : 0.5)));
      }
    }
  }
};

uint8_t to_level(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kFraction, 0, 255)); }
constexpr int32_t kHalf = 1 << (kFraction - 1);

template <int channels>
void resize_row(const uint8_t* in, const Axis& axis, uint8_t* out) {
  for (const Taps& taps : axis.outputs) {
    const int32_t* w = axis.weights.data() + taps.weights;
    const uint8_t* from = in + taps.first * channels;
    int32_t sums[channels];
    std::fill_n(sums, channels, kHalf);
    for (int64_t t = 0; t < taps.count; ++t)
      for (int c = 0; c < channels; ++c) sums[c] += from[t * channels + c] * w[t];
    for (int c = 0; c < channels; ++c) *out++ = to_level(sums[c]);
  }
}

Image resize_width(const ImageView& image, int64_t width, ResizeFilter filter) {
  const Axis axis(image.width, width, filter);
  Image out(image.height, width, image.channels);
  for (int64_t y = 0; y < image.height; ++y)
    (image.channels == 1 ? resize_row<1> : resize_row<3>)(image.row(y), axis, out.row(y));
  return out;
}

Image resize_height(const ImageView& image, int64_t height, ResizeFilter filter) {
  const Axis axis(image.height, height, filter);
  Image out(height, image.width, image.channels);
  const int64_t row = image.width * image.channels;
  std::vector<int32_t> sums(static_cast<size_t>(row));
  for (int64_t y = 0; y < height; ++y) {
    const Taps& taps = axis.outputs[static_cast<size_t>(y)];
    std::fill(sums.begin(), sums.end(), kHalf);
    int32_t* const sum = sums.data();
    for (int64_t t = 0; t < taps.count; ++t) {
      const int32_t w = axis.weights[taps.weights + static_cast<size_t>(t)];
      const uint8_t* from = image.row(taps.first + t);
      for (int64_t i = 0; i < row; ++i) sum[i] += from[i] * w;
    }
    uint8_t* to = out.row(y);
    for (int64_t i = 0; i < row; ++i) to[i] = to_level(sum[i]);
  }
  return out;
}

Image copy_of(const ImageView& image) {
  Image out(image.height, image.width, image.channels);
  for (int64_t y = 0; y < image.height; ++y)
    std::memcpy(out.row(y), image.row(y), static_cast<size_t>(image.width * image.channels));
  return out;
}

}  // namespace

Image resize_image(const ImageView& image, int64_t height, int64_t width, ResizeFilter filter) {
  QN_ASSERT(height > 0 && width > 0 && image.height > 0 && image.width > 0, "an empty picture");
  QN_ASSERT(image.channels == 1 || image.channels == 3, "{} channels", image.channels);
  if (width == image.width) return height == image.height ? copy_of(image) : resize_height(image, height, filter);
  // Pillow's exception: of a strip of more than 100 times its width the rows come first.
  if (image.height > 100 * image.width && height < image.height)
    return resize_width(resize_height(image, height, filter).view(), width, filter);
  const Image narrow = resize_width(image, width, filter);
  return height == image.height ? narrow : resize_height(narrow.view(), height, filter);
}

}  // namespace qn
