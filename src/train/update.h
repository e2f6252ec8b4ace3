// One update: forward and backward of this rank's share of the global micro-batches, all-reduce, clipping, optimizer.
#pragma once

#include <functional>

#include "comm/communicator.h"
#include "models/language_model.h"
#include "train/gradient_reducer.h"
#include "train/optimizer.h"

namespace qn {

struct UpdateOptions {
  uint64_t seed = 1;
  DType dtype = DType::f32;  ///< of activations; see ops/kernels.h
  double clip_norm = 0.0;
  size_t bucket_bytes = size_t{4} << 20;
  bool overlap = false;                  ///< all-reduce buckets while the backward still runs
  bool skip_missing = false;             ///< ranks must agree on which gradients are missing
  DeviceCommunicator* device = nullptr;  ///< sums gradients that are not in host memory
};

struct UpdateResult {
  double loss = 0.0;       ///< natural log, summed over all target tokens of all ranks
  int64_t tokens = 0;      ///< target tokens of all ranks
  double grad_norm = 0.0;  ///< of the gradient of the mean loss, before clipping
  bool clipped = false;
};

/// A micro-batch and its number of target tokens.
struct MicroBatch {
  TokenBatch batch;
  int64_t tokens = 0;
};

class UpdateRunner {
 public:
  UpdateRunner(LanguageModel& model, const Kernels& kernels, Communicator& comm, const UpdateOptions& options);

  /// Update number `update` + 1 from `count` global micro-batches; `fetch(i)` is called for those of this rank
  /// (i % size == rank), and what it returns must live until the next call. Throws qn::Error when the gradient is not
  /// finite; parameters are then unchanged.
  UpdateResult run(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch, Optimizer& optimizer,
                   double lr);

  const Arena& arena() const { return arena_; }

 private:
  void accumulate(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch, UpdateResult& sum);
  void reduce(UpdateResult& sum);

  LanguageModel& model_;
  const Kernels& kernels_;
  Communicator& comm_;
  UpdateOptions options_;
  Arena arena_;
  Tape tape_;
  GradientReducer reducer_;
};

}  // namespace qn
