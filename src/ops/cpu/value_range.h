// The smallest and largest of many values, vectorised.
#pragma once

#include <cstdint>
#include <limits>

#include "ops/cpu/parallel.h"

namespace qn::cpu {

/// Nothing seen yet: +infinity and -infinity. A NaN makes both bounds NaN.
template <typename P>
struct ValueRange {
  P low = std::numeric_limits<P>::infinity(), high = -std::numeric_limits<P>::infinity();

  void include(const ValueRange& other) {
    low = other.low < low || other.low != other.low ? other.low : low;
    high = other.high > high || other.high != other.high ? other.high : high;
  }
};

/// Range of n adjacent values.
template <typename T>
ValueRange<ParameterOf<T>> range_of(const T* values, int64_t n) {
  using P = ParameterOf<T>;
  constexpr int64_t kLanes = 32;
  ValueRange<P> range;
  const auto merge = [&range](P low, P high, P nan) {
    range.include({low, high});
    if (nan != nan) range = {nan, nan};
  };
  P low[kLanes], high[kLanes], nan[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) low[l] = range.low, high[l] = range.high, nan[l] = P{0};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const P x = static_cast<P>(values[i + l]);
      low[l] = x < low[l] ? x : low[l];
      high[l] = x > high[l] ? x : high[l];
      nan[l] = x != x ? x : nan[l];
    }
  for (int64_t l = 0; l < kLanes; ++l) merge(low[l], high[l], nan[l]);
  for (; i < n; ++i) {
    const P x = static_cast<P>(values[i]);
    merge(x, x, x);
  }
  return range;
}

}  // namespace qn::cpu
