// How far a piece of work is that takes long: an evaluation, a k-means. Loops tell it; whoever shows it listens.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

namespace qn {

using WorkListener = std::function<void(int64_t done, int64_t total)>;
/// Of the work that this thread does; empty: nobody listens.
inline thread_local WorkListener work_listener;

/// `done` of `total` parts of the work that is under way in this thread.
inline void tell_work(int64_t done, int64_t total) {
  if (work_listener) work_listener(done, total);
}

class ListeningScope {
 public:
  explicit ListeningScope(WorkListener listener) : outer_(std::exchange(work_listener, std::move(listener))) {}
  ~ListeningScope() { work_listener = std::move(outer_); }
  ListeningScope(const ListeningScope&) = delete;
  ListeningScope& operator=(const ListeningScope&) = delete;

 private:
  WorkListener outer_;
};

}  // namespace qn
