// What this process does as far as other ranks can tell: written by the thread that computes, read by the watchdog's
// (comm/watchdog.h).
#pragma once

#include <atomic>
#include <cstdint>

namespace qn {

struct Activity {
  std::atomic<uint64_t> collectives{0};       ///< operations with all other ranks, entered so far
  std::atomic<uint64_t> waits{0};             ///< changes whenever a wait begins or ends
  std::atomic<const char*> waiting{nullptr};  ///< for what; null: the process computes
};
inline constinit Activity activity;

/// The thread waits for something that other ranks may have a part in: a collective, or a device that computes one.
class WaitingScope {
 public:
  /// `what` completes "rank 1 waits in ..." and must be a literal.
  explicit WaitingScope(const char* what) : outer_(activity.waiting.load(std::memory_order_relaxed)) { change(what); }
  ~WaitingScope() { change(outer_); }
  WaitingScope(const WaitingScope&) = delete;
  WaitingScope& operator=(const WaitingScope&) = delete;

 private:
  static void change(const char* what) {
    activity.waits.fetch_add(1, std::memory_order_relaxed);
    activity.waiting.store(what, std::memory_order_relaxed);
  }
  const char* outer_;
};

/// An operation that all ranks enter in the same order. One that only starts something ends at once.
class CollectiveScope {
 public:
  explicit CollectiveScope(const char* what) : waiting_(counted(what)) {}

 private:
  static const char* counted(const char* what) {
    activity.collectives.fetch_add(1, std::memory_order_relaxed);
    return what;
  }
  WaitingScope waiting_;
};

}  // namespace qn
