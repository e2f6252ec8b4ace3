#include "digits.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <stdexcept>

namespace {

/// The bytes of an idx file behind its header: a number of magic whose last byte is the number of dimensions, then the
/// dimensions, all of four bytes.
std::vector<unsigned char> read_idx(const std::filesystem::path& path, unsigned char dimensions) {
  std::ifstream file(path, std::ios::binary);
  std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
  const size_t header = 4 + size_t{4} * dimensions;
  if (bytes.size() <= header || bytes[3] != dimensions)
    throw std::runtime_error(path.string() + " is no idx file of " + std::to_string(dimensions) + " dimensions");
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(header));
  return bytes;
}

Images read_images(const std::filesystem::path& folder, const std::string& part) {
  Images images;
  for (const unsigned char v : read_idx(folder / (part + "-images-idx3-ubyte"), 3))
    images.pixels.push_back(static_cast<float>(v) / 255.0f);
  for (const unsigned char v : read_idx(folder / (part + "-labels-idx1-ubyte"), 1))
    images.labels.push_back(v % kClasses);
  if (std::ssize(images.pixels) != images.count() * kPixels)
    throw std::runtime_error(folder.string() + " has other numbers of " + part + " images and labels");
  return images;
}

struct Blob {
  float x, y, radius;
};

class Random {
 public:
  explicit Random(unsigned seed) : generator_(seed) {}
  float between(float low, float high) {
    return low + (high - low) * static_cast<float>(generator_()) / static_cast<float>(std::mt19937::max());
  }

 private:
  std::mt19937 generator_;
};

void draw(const std::vector<Blob>& figure, Random& random, std::vector<float>& pixels) {
  const float dx = random.between(-3, 3), dy = random.between(-3, 3);
  for (int64_t i = 0; i < kPixels; ++i) {
    float grey = random.between(0, 0.7f);
    for (const Blob& b : figure) {
      const float x = static_cast<float>(i % kSide) - b.x - dx, y = static_cast<float>(i / kSide) - b.y - dy;
      grey += std::exp(-(x * x + y * y) / (2 * b.radius * b.radius));
    }
    pixels.push_back(std::min(grey, 1.0f));
  }
}

Images draw_all(const std::vector<std::vector<Blob>>& figures, int64_t count, unsigned seed) {
  Random random(seed);
  Images images;
  for (int64_t i = 0; i < count; ++i) {
    images.labels.push_back(static_cast<int32_t>(i % kClasses));
    draw(figures[static_cast<size_t>(i % kClasses)], random, images.pixels);
  }
  return images;
}

}  // namespace

Digits read_mnist(const std::filesystem::path& folder) {
  return {read_images(folder, "train"), read_images(folder, "t10k")};
}

Digits make_digits(int64_t train, int64_t test) {
  Random random(1);
  std::vector<std::vector<Blob>> figures(kClasses, std::vector<Blob>(5));
  for (auto& figure : figures)
    for (Blob& b : figure) b = {random.between(7, 21), random.between(7, 21), random.between(1.5f, 2.5f)};
  return {draw_all(figures, train, 2), draw_all(figures, test, 3)};
}
