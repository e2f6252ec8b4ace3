// Work that threads share out among themselves as they become free.
#pragma once

#include <atomic>
#include <cstdint>

namespace qn::cpu {

/// Pieces 0 .. count - 1, each done by whichever thread of a parallel region comes first. Where threads are not equally
/// fast, or pieces not equally large, nobody waits long.
class Pieces {
 public:
  explicit Pieces(int64_t count) : count_(count) {}

  /// Calls f(piece) for pieces that nobody has taken yet, until there are none.
  template <typename F>
  void share(const F& f) {
    for (int64_t piece; (piece = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) f(piece);
  }

 private:
  std::atomic<int64_t> next_ = 0;
  int64_t count_;
};

}  // namespace qn::cpu
