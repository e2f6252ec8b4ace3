#include "data/image_ops.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace qn {
namespace {

using Table = std::array<uint8_t, 256>;

uint8_t to_level(double value) { return static_cast<uint8_t>(std::clamp(value, 0.0, 255.0)); }

/// Image.blend(): cut, not rounded.
uint8_t blend(int from, int to, float factor) {
  const float value = static_cast<float>(from) + factor * static_cast<float>(to - from);
  return static_cast<uint8_t>(std::clamp(value, 0.F, 255.F));
}

template <typename Level>
Table table_of(Level level) {
  Table table;
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = level(i);
  return table;
}

void look_up(Image& image, const Table& table) {
  for (uint8_t& level : image.pixels) level = table[level];
}

/// A table per channel, made of how often its levels occur.
template <typename MakeTable>
void look_up_by_histogram(Image& image, MakeTable make) {
  const auto channels = static_cast<size_t>(image.channels);
  for (size_t c = 0; c < channels; ++c) {
    std::array<int64_t, 256> counts{};
    for (size_t i = c; i < image.pixels.size(); i += channels) ++counts[image.pixels[i]];
    const Table table = make(counts);
    for (size_t i = c; i < image.pixels.size(); i += channels) image.pixels[i] = table[image.pixels[i]];
  }
}

int mean_brightness(const Image& image) {
  int64_t sum = 0;
  const auto channels = static_cast<size_t>(image.channels);
  for (size_t i = 0; i < image.pixels.size(); i += channels)
    sum += channels == 1 ? image.pixels[i] : luma(&image.pixels[i]);
  const auto count = static_cast<double>(image.height * image.width);
  return static_cast<int>(static_cast<double>(sum) / count + 0.5);
}

/// Pillow's HSV in 8 bits.
std::array<uint8_t, 3> hsv_of(const uint8_t* rgb) {
  const uint8_t r = rgb[0], g = rgb[1], b = rgb[2];
  const uint8_t most = std::max({r, g, b}), least = std::min({r, g, b});
  if (most == least) return {0, 0, most};
  const auto range = static_cast<float>(most - least);
  const float s = range / static_cast<float>(most);
  const float rc = static_cast<float>(most - r) / range, gc = static_cast<float>(most - g) / range,
              bc = static_cast<float>(most - b) / range;
  const auto sector = static_cast<float>(r == most ? bc - gc : g == most ? 2.0 + rc - bc : 4.0 + gc - rc);
  const auto h = static_cast<float>(std::fmod(sector / 6.0 + 1.0, 1.0));
  return {to_level(h * 255.0), to_level(s * 255.0), most};
}

void set_rgb(const std::array<uint8_t, 3>& hsv, uint8_t* rgb) {
  const auto [h, s, v] = hsv;
  if (s == 0) {
    std::fill_n(rgb, 3, v);
    return;
  }
  const double place = static_cast<float>(h) * 6.0 / 255.0;
  const int sector = static_cast<int>(std::floor(place));
  const auto f = static_cast<float>(place - sector), fs = static_cast<float>(s / 255.0);
  const auto level = [&, value = v](double share) { return to_level(std::round(value * share)); };
  const uint8_t p = level(1.0 - fs), q = level(1.0 - fs * f), t = level(1.0 - fs * (1.0 - f));
  const std::array<uint8_t, 3> kSectors[] = {{v, t, p}, {q, v, p}, {p, v, t}, {p, q, v}, {t, p, v}, {v, p, q}};
  std::copy_n(kSectors[sector % 6].begin(), 3, rgb);
}

/// The mean of a pixel, counted five times, and its eight neighbours; pixels at the border stay.
Image smoothed(const Image& image) {
  Image out = image;
  const int64_t step = image.channels;
  for (int64_t y = 1; y + 1 < image.height; ++y) {
    const uint8_t* rows[] = {image.view().row(y - 1), image.view().row(y), image.view().row(y + 1)};
    for (int64_t i = step; i < (image.width - 1) * step; ++i) {
      int sum = 4 * rows[1][i];
      for (const uint8_t* row : rows) sum += row[i - step] + row[i] + row[i + step];
      out.row(y)[i] = static_cast<uint8_t>((2 * sum + 13) / 26);  // sum / 13, rounded
    }
  }
  return out;
}

}  // namespace

void adjust_brightness(Image& image, double factor) {
  look_up(image, table_of([f = static_cast<float>(factor)](int i) { return blend(0, i, f); }));
}

void adjust_contrast(Image& image, double factor) {
  const int mean = mean_brightness(image);
  look_up(image, table_of([mean, f = static_cast<float>(factor)](int i) { return blend(mean, i, f); }));
}

void adjust_saturation(Image& image, double factor) {
  if (image.channels == 1) return;
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    const int grey = luma(&image.pixels[i]);
    for (size_t c = 0; c < 3; ++c) image.pixels[i + c] = blend(grey, image.pixels[i + c], static_cast<float>(factor));
  }
}

void adjust_sharpness(Image& image, double factor) {
  const Image smooth = smoothed(image);
  for (size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = blend(smooth.pixels[i], image.pixels[i], static_cast<float>(factor));
}

void shift_hue(Image& image, double turn) {
  if (image.channels == 1) return;
  const auto shift = static_cast<uint8_t>(static_cast<int>(turn * 255));
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    std::array<uint8_t, 3> hsv = hsv_of(&image.pixels[i]);
    hsv[0] = static_cast<uint8_t>(hsv[0] + shift);
    set_rgb(hsv, &image.pixels[i]);
  }
}

void posterize(Image& image, int bits) {
  look_up(image, table_of([mask = 0xff << (8 - bits)](int i) { return static_cast<uint8_t>(i & mask); }));
}

void solarize(Image& image, double threshold) {
  look_up(image, table_of([threshold](int i) { return static_cast<uint8_t>(i < threshold ? i : 255 - i); }));
}

void stretch_levels(Image& image) {
  look_up_by_histogram(image, [](const std::array<int64_t, 256>& counts) {
    int low = 0, high = 255;
    while (low < 255 && counts[static_cast<size_t>(low)] == 0) ++low;
    while (high > 0 && counts[static_cast<size_t>(high)] == 0) --high;
    if (high <= low) return table_of([](int i) { return static_cast<uint8_t>(i); });
    const double scale = 255.0 / (high - low), offset = -low * scale;
    return table_of([&](int i) { return to_level(std::trunc(i * scale + offset)); });
  });
}

void equalize_levels(Image& image) {
  look_up_by_histogram(image, [](const std::array<int64_t, 256>& counts) {
    int64_t total = 0, last = 0;
    for (const int64_t count : counts) {
      total += count;
      if (count > 0) last = count;
    }
    const int64_t step = (total - last) / 255;
    if (step == 0) return table_of([](int i) { return static_cast<uint8_t>(i); });
    int64_t below = step / 2;
    return table_of([&](int i) {
      const auto level = static_cast<uint8_t>(std::min<int64_t>(255, below / step));
      below += counts[static_cast<size_t>(i)];
      return level;
    });
  });
}

Image warped(const Image& image, const AffineMap& map, const std::array<uint8_t, 3>& fill) {
  Image out(image.height, image.width, image.channels);
  const ImageView in = image.view();
  uint8_t* to = out.pixels.data();
  const auto inside = [](int64_t i, int64_t size) { return std::clamp<int64_t>(i, 0, size - 1); };
  for (int64_t row = 0; row < image.height; ++row) {
    for (int64_t col = 0; col < image.width; ++col, to += image.channels) {
      const double cx = static_cast<double>(col) + 0.5, cy = static_cast<double>(row) + 0.5;
      const double x = map[0] * cx + map[1] * cy + map[2], y = map[3] * cx + map[4] * cy + map[5];
      if (x < 0 || y < 0 || x >= static_cast<double>(image.width) || y >= static_cast<double>(image.height)) {
        std::copy_n(fill.begin(), image.channels, to);
        continue;
      }
      const auto left = static_cast<int64_t>(std::floor(x - 0.5)), top = static_cast<int64_t>(std::floor(y - 0.5));
      const double dx = x - 0.5 - static_cast<double>(left), dy = y - 0.5 - static_cast<double>(top);
      const int64_t x0 = inside(left, image.width) * image.channels,
                    x1 = inside(left + 1, image.width) * image.channels;
      const uint8_t *upper = in.row(inside(top, image.height)), *lower = in.row(inside(top + 1, image.height));
      for (int64_t c = 0; c < image.channels; ++c) {
        const double a = upper[x0 + c] + (upper[x1 + c] - upper[x0 + c]) * dx;
        const double b = lower[x0 + c] + (lower[x1 + c] - lower[x0 + c]) * dx;
        to[c] = static_cast<uint8_t>(a + (b - a) * dy);
      }
    }
  }
  return out;
}

AffineMap rotation(double degrees, int64_t height, int64_t width) {
  const double angle = -degrees * std::numbers::pi / 180, cosine = std::cos(angle), sine = std::sin(angle);
  const double cx = static_cast<double>(width) / 2, cy = static_cast<double>(height) / 2;
  return {cosine, sine, cx - cosine * cx - sine * cy, -sine, cosine, cy + sine * cx - cosine * cy};
}

}  // namespace qn
