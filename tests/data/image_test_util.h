// Small pictures and files for the tests of images.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/data_test_util.h"
#include "data/image.h"

namespace qn::test {

/// A picture whose every level differs from its neighbours'.
inline Image numbered_image(int64_t height, int64_t width, int64_t channels, int first = 0) {
  Image image(height, width, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<uint8_t>(first + 37 * static_cast<int>(i));
  return image;
}

/// The content of an idx file of bytes.
inline std::string idx_content(const std::vector<uint32_t>& sizes, const std::vector<uint8_t>& values) {
  std::string content{'\0', '\0', '\x08', static_cast<char>(sizes.size())};
  for (const uint32_t size : sizes)
    for (const int shift : {24, 16, 8, 0}) content += static_cast<char>(size >> shift);
  return content.append(values.begin(), values.end());
}

/// The four files of a data set like MNIST: `train` and `test` images of 4 x 3 pixels; image i of a split has the level
/// 10 * i + place in it, and label i % 3.
inline void write_small_mnist(const std::filesystem::path& folder, uint32_t train, uint32_t test) {
  std::filesystem::create_directories(folder);
  for (const auto& [name, count] : {std::pair{"train", train}, std::pair{"t10k", test}}) {
    std::vector<uint8_t> pixels, labels;
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t p = 0; p < 12; ++p) pixels.push_back(static_cast<uint8_t>(10 * i + p));
      labels.push_back(static_cast<uint8_t>(i % 3));
    }
    const std::string prefix = name;
    write_text(folder / (prefix + "-images-idx3-ubyte"), idx_content({count, 4, 3}, pixels));
    write_text(folder / (prefix + "-labels-idx1-ubyte"), idx_content({count}, labels));
  }
}

}  // namespace qn::test
