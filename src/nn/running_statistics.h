// Running averages of batch statistics. What the micro-batches of an update have seen is collected, on every rank, and
// comes into the averages once per update: they are the same for any number of ranks, and as those of one micro-batch
// where there is but one.
#pragma once

#include <deque>
#include <span>

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
    int64_t values;  ///< that each channel had in the pass before
  };
  Entry* add(const NormParts& norm, double momentum);

  bool empty() const { return entries_.empty(); }
  void allocate(DType dtype, const Kernels& kernels);
  /// Of all entries, flat: zero before an update, summed over the ranks behind it.
  const Tensor& sums() const { return sums_.view(); }
  /// Unless they are frozen, takes what `micro_batches` of all ranks have seen into account: average = (1 - momentum)
  /// average + momentum mean over the micro-batches.
  void apply(const Kernels& kernels, int64_t micro_batches);

  /// To take the averages anew over many micro-batches as if they were one. pool() adds what a micro-batch alone has
  /// left in sums() to `pooled`, for every entry [1 + 2 C] numbers: how many values a channel had, their sums, and sums
  /// of squares; these may be added up over micro-batches and ranks. replace() makes mean and unbiased variance of
  /// them.
  size_t pooled_size() const;
  void pool(const Kernels& kernels, std::span<double> pooled) const;
  void replace(const Kernels& kernels, std::span<const double> pooled);

  /// Training, too, normalises by the averages, which stay as they are.
  void freeze(bool frozen) { frozen_ = frozen; }
  bool frozen() const { return frozen_; }

  /// Whether a buffer is one of the averages.
  bool owns(const ModuleBuffer* buffer) const;
  /// Has every norm do in weight and bias what it did with its averages, which become 0 and 1, as they start:
  /// weight' = weight sqrt(1 + eps) / sqrt(var + eps), bias' = bias - mean weight / sqrt(var + eps).
  void fold(const Kernels& kernels);

 private:
  std::deque<Entry> entries_;
  int64_t elements_ = 0;
  bool frozen_ = false;
  OwnedTensor sums_;
};

}  // namespace qn
