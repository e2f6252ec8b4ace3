// Copying what a checkpoint holds while training computes the next gradient, which only reads it.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "nn/state_dict.h"

namespace qn {

/// For one thread's use. Sources must neither change nor go before finish() has returned.
class LateCopies {
 public:
  LateCopies() = default;
  ~LateCopies() { done_.valid() ? done_.wait() : void(); }
  LateCopies(const LateCopies&) = delete;
  LateCopies& operator=(const LateCopies&) = delete;

  /// Makes the copies in another thread, then looks at the whole state as check_finite() does. finish() must have been
  /// called since the last start. The result is ready when the state is complete; it throws what finish() throws.
  std::shared_future<void> start(std::vector<StateDict::LateCopy> copies, std::shared_ptr<const StateDict> state);
  /// Waits. Throws qn::Error when the state is not finite, once.
  void finish();

 private:
  std::shared_future<void> done_;
};

}  // namespace qn
