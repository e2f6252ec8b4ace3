// Running averages of batch statistics. What the micro-batches of an update have seen is collected, on every rank, and
// comes into the averages once per update: they are the same for any number of ranks, and as those of one micro-batch
// where there is but one.
#pragma once

#include <deque>

#include "nn/buffers.h"
#include "nn/parameters.h"

namespace qn {

/// What a batch normalisation of C channels consists of.
struct NormParts {
  Parameter *weight, *bias;
  ModuleBuffer *mean, *var;  ///< running averages
  double eps;
};

class RunningStatistics {
 public:
  /// Averages that take in the share `momentum` of every update.
  struct Entry {
    NormParts norm;
    double momentum;
    int64_t offset;  ///< of this entry in the sums: mean [C], then variance [C]
    Tensor sums;     ///< [2, C], of this update; defined after allocate()
  };
  Entry* add(const NormParts& norm, double momentum);

  bool empty() const { return entries_.empty(); }
  void allocate(DType dtype, const Kernels& kernels);
  /// Of all entries, flat: zero before an update, summed over the ranks behind it.
  const Tensor& sums() const { return sums_.view(); }
  /// Unless they are frozen, takes what `micro_batches` of all ranks have seen into account: average = (1 - momentum)
  /// average + momentum mean over the micro-batches.
  void apply(const Kernels& kernels, int64_t micro_batches);
  /// Forgets the averages: they become the mean over the micro-batches.
  void replace(const Kernels& kernels, int64_t micro_batches);

  /// Training, too, normalises by the averages, which stay as they are.
  void freeze(bool frozen) { frozen_ = frozen; }
  bool frozen() const { return frozen_; }

  /// Whether a buffer is one of the averages.
  bool owns(const ModuleBuffer* buffer) const;
  /// Has every norm do in weight and bias what it did with its averages, which become 0 and 1, as they start:
  /// weight' = weight sqrt(1 + eps) / sqrt(var + eps), bias' = bias - mean weight / sqrt(var + eps).
  void fold(const Kernels& kernels);

 private:
  static void blend(const Kernels& kernels, const Entry& entry, int64_t micro_batches, double momentum);

  std::deque<Entry> entries_;
  int64_t elements_ = 0;
  bool frozen_ = false;
  OwnedTensor sums_;
};

}  // namespace qn
