// Roundings to float that results depend on, in the forms in which the libraries have them. GCC 12.2 drops them where
// neighbouring doubles are rounded to float and stored as doubles (findings/gcc12_lost_rounding.sh), so results that
// are to be rounded are kept as floats: this fails if the compiler in use loses a rounding all the same.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

namespace qn {
namespace {

/// Rounds one number through memory, where no compiler can avoid it.
float rounded(double value) {
  volatile float memory = static_cast<float>(value);
  return memory;
}

/// Neighbours that no float equals.
std::vector<double> numbers(size_t count) {
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) values.push_back((i % 2 == 0 ? -0.1 : 0.3) / static_cast<double>(2 * i + 3));
  return values;
}

/// A running average as activation ranges have it.
struct Average {
  float low = 0.0f, high = 0.0f, updates = 0.0f;
};

[[gnu::noinline]] void update(std::span<Average> averages, std::span<const double> seen) {
  for (size_t i = 0; i < averages.size(); ++i) {
    const double low = seen[2 * i], high = seen[2 * i + 1];
    Average& a = averages[i];
    a.updates += 1.0f;
    const double share = 1.0 / static_cast<double>(a.updates);
    a.low = static_cast<float>(a.low + share * (low - a.low));
    a.high = static_cast<float>(a.high + share * (high - a.high));
  }
}

[[gnu::noinline]] void widen(std::span<double> to, std::span<const Average> averages) {
  for (size_t i = 0; i < averages.size(); ++i) to[2 * i] = averages[i].low, to[2 * i + 1] = averages[i].high;
}

TEST(Rounding, NeighbouringAveragesAreFloats) {
  for (const size_t count : {1u, 2u, 7u}) {
    std::vector<Average> averages(count);
    const std::vector<double> seen = numbers(2 * count);
    std::vector<double> result(2 * count), expected(2 * count);
    for (int updates = 1; updates <= 3; ++updates) {
      update(averages, seen);
      widen(result, averages);
      for (size_t i = 0; i < expected.size(); ++i)
        expected[i] = rounded(expected[i] + 1.0 / updates * (seen[i] - expected[i]));
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(result[i], expected[i]) << count << ' ' << i;
    }
  }
}

/// A step of k-means: moves floats and says how far each went, which is not how far it was told to go.
[[gnu::noinline]] double move(std::span<float> centroid, std::span<const double> shift) {
  double moved = 0.0;
  for (size_t t = 0; t < centroid.size(); ++t) {
    float& c = centroid[t];
    const float mean = static_cast<float>(static_cast<double>(c) + shift[t]);
    const double step = static_cast<double>(mean) - static_cast<double>(c);
    moved += step * step;
    c = mean;
  }
  return moved;
}

TEST(Rounding, DistancesAreThoseOfTheRoundedNumbers) {
  for (const size_t count : {2u, 4u, 8u, 9u}) {
    const std::vector<double> shift = numbers(count);
    std::vector<float> centroid(count, 1.0f);
    double expected = 0.0, unrounded = 0.0;
    for (const double s : shift) {
      const double step = static_cast<double>(rounded(1.0 + s)) - 1.0;
      expected += step * step;
      unrounded += s * s;
    }
    EXPECT_GT(std::abs(unrounded - expected), 1e-10 * expected) << "the rounding is too small to be seen";
    EXPECT_NEAR(move(centroid, shift), expected, 1e-14 * expected);
    for (size_t t = 0; t < count; ++t) EXPECT_EQ(centroid[t], rounded(1.0 + shift[t]));
  }
}

}  // namespace
}  // namespace qn
