// Going through a pass without computing it: what it would ask of the kernels, as a number.
#pragma once

#include <cstdint>

#include "ops/kernels.h"

namespace qn {

/// Kernels that do nothing but take note of what they are called with; only uploads are done. Two passes with equal
/// signatures queue the same kernels with the same arguments, apart from update and micro-batch of random keys: a graph
/// recorded from one computes the other. One of them may be in use per thread at a time.
class DryRun {
 public:
  explicit DryRun(const Kernels& inner);
  const Kernels& kernels() const { return table_; }
  /// Starts a new signature.
  void begin();
  uint64_t signature() const;

 private:
  Kernels table_;
  const Kernels& inner_;
};

}  // namespace qn
