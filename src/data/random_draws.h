// Random numbers one after the other, of one key.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/random.h"

namespace qn {

class RandomDraws {
 public:
  explicit RandomDraws(const RandomKey& key) : stream_(key) {}

  double uniform() { return stream_.uniform(next_++); }  ///< in [0, 1)
  double between(double low, double high) { return low + (high - low) * uniform(); }
  /// 0 to count - 1.
  int64_t below(int64_t count) {
    return std::min(count - 1, static_cast<int64_t>(uniform() * static_cast<double>(count)));
  }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

}  // namespace qn
