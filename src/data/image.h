// Pictures in memory: bytes, rows from top to bottom, channels innermost (HWC).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qn {

/// Levels of 0 to 255, [height, width, channels], somewhere else in memory; rows may lie apart.
struct ImageView {
  const uint8_t* data = nullptr;
  int64_t height = 0, width = 0, channels = 0;
  int64_t row_bytes = 0;  ///< from one row to the next

  const uint8_t* row(int64_t y) const { return data + y * row_bytes; }
  /// A part, which must lie inside.
  ImageView part(int64_t top, int64_t left, int64_t rows, int64_t cols) const {
    return {row(top) + left * channels, rows, cols, channels, row_bytes};
  }
};

/// A picture with its own memory: 1 channel (grey) or 3 (RGB).
struct Image {
  int64_t height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  Image(int64_t rows, int64_t cols, int64_t depth)
      : height(rows), width(cols), channels(depth), pixels(static_cast<size_t>(rows * cols * depth)) {}

  uint8_t* row(int64_t y) { return pixels.data() + y * width * channels; }
  ImageView view() const { return {pixels.data(), height, width, channels, width * channels}; }
};

/// Brightness of a colour as Pillow's convert("L") has it: ITU-R 601-2 in 16 bits of fraction, rounded.
inline uint8_t luma(const uint8_t* rgb) {
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

}  // namespace qn
