// Histograms of values whose range is not known beforehand: what the range search needs of activations.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace qn {

/// Counts in kBins equal bins about zero, whose width is a power of two. Values that are farther out double it, which
/// merges bins two by two: so the counts depend on the values alone, whatever order they come in, and those of ranks
/// add up. (The reference's observer interpolates instead, and depends on the order.) At least a quarter of the bins
/// lies between zero and the value that is farthest out.
class ValueHistogram {
 public:
  static constexpr int64_t kBins = 8192;
  struct Bounds {
    double low, high;
  };

  /// Adds the values of a host tensor of any type of activations. If one is not finite, none is counted.
  void add(const Tensor& values);
  /// Makes the bins as wide as those of a histogram with values in [low, high], if they are narrower.
  void cover(double low, double high);
  /// [kBins]
  std::span<int64_t> counts() { return counts_; }
  /// The part of [low, high], the range of the values, that search_bins() keeps for this many levels. It sees at most
  /// 4096 bins and, where zero is inside, at least 2048 (the reference: 2048). A bound that is not cut stays as it is.
  Bounds search(double low, double high, int64_t levels) const;

 private:
  static constexpr int kNarrowest = -160;  // 2^-160 is far below the smallest float
  static int exponent_for(double magnitude);
  void widen(int exponent);
  int64_t bin_of(double value) const;
  template <typename T>
  void count(std::span<const T> values);

  int exponent_ = kNarrowest;  // bins are 2^exponent wide
  std::vector<int64_t> counts_ = std::vector<int64_t>(kBins, 0);
};

/// ValueHistogram::search() with these arguments.
struct RangeSearch {
  const ValueHistogram* histogram;
  double low, high;
  int64_t levels;
};
/// The bounds that each finds; they run in parallel.
std::vector<ValueHistogram::Bounds> search_all(std::span<const RangeSearch> searches);

}  // namespace qn
