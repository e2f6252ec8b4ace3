// The data of the example: MNIST, or images like it that need no file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

constexpr int64_t kSide = 28, kPixels = kSide * kSide, kClasses = 10;

struct Images {
  std::vector<float> pixels;    ///< [count, kPixels], from 0 to 1
  std::vector<int32_t> labels;  ///< [count]

  int64_t count() const { return static_cast<int64_t>(labels.size()); }
};

struct Digits {
  Images train, test;
};

/// MNIST from a folder with its four unpacked files: train-images-idx3-ubyte and so on. Throws when they are not there.
Digits read_mnist(const std::filesystem::path& folder);

/// Ten made-up figures of blobs, moved about and covered with noise; the same ones in every call.
Digits make_digits(int64_t train, int64_t test);
