// Running averages of batch statistics. What the micro-batches of an update have seen is collected, on every rank, and
// comes into the averages once per update: they are the same for any number of ranks, and as those of one micro-batch
// where there is but one.
#pragma once

#include <deque>

#include "nn/buffers.h"

namespace qn {

class RunningStatistics {
 public:
  /// Averages of C channels with the share `momentum` of every update, in buffers of the module.
  struct Entry {
    ModuleBuffer *mean, *var;
    double momentum;
    int64_t offset;  ///< of this entry in the sums: mean [C], then variance [C]
    Tensor sums;     ///< [2, C], of this update; defined after allocate()
  };
  Entry* add(ModuleBuffer* mean, ModuleBuffer* var, double momentum);

  bool empty() const { return entries_.empty(); }
  void allocate(DType dtype, const Kernels& kernels);
  /// Of all entries, flat: zero before an update, summed over the ranks behind it.
  const Tensor& sums() const { return sums_.view(); }
  /// Takes what `micro_batches` of all ranks have seen into account: average = (1 - momentum) average + momentum mean
  /// over the micro-batches.
  void apply(const Kernels& kernels, int64_t micro_batches);

 private:
  std::deque<Entry> entries_;
  int64_t elements_ = 0;
  OwnedTensor sums_;
};

}  // namespace qn
