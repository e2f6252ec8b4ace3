// Sums the flat gradient over ranks in buckets. The backward completes parameters roughly in reverse order of their
// registration, so the last buckets can travel while the first are still computed.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "comm/device_communicator.h"
#include "nn/parameters.h"

namespace qn {

class GradientReducer {
 public:
  /// With `overlap`, buckets start as soon as the last micro-batch has completed them; otherwise all at the end.
  /// `device`, which must outlive this, sums gradients where they are; without it those that are not in host memory
  /// travel through it, all at the end.
  GradientReducer(ParameterStore& store, Communicator& comm, size_t bucket_bytes, bool overlap,
                  DeviceCommunicator* device = nullptr);

  /// Before the backward of this rank's last micro-batch, whose forward has just been recorded.
  void begin(const Tape& tape);
  /// After that backward's step number `index` (they run last first).
  void step_done(size_t index);
  /// Whether sums start before the backward has ended.
  bool overlaps() const { return overlap_; }
  /// Sums what has not been summed yet: with a device, kernels called from now on see the sums. Gradients that no rank
  /// wrote become zero; `touched` stays as it was.
  void finish();

 private:
  struct Bucket {
    int64_t begin, end;                  ///< elements of the flat gradient
    size_t first_parameter, parameters;  ///< those that share it
    size_t ready_step;                   ///< complete once the backward has come down to this step
  };
  void lay_out();
  void start_next();
  void start_sum(const Tensor& grads);
  void sum_on_host();

  ParameterStore& store_;
  Communicator& comm_;
  DeviceCommunicator* device_;
  size_t bucket_bytes_;
  bool overlap_, started_ = false;
  int64_t elements_ = -1;
  std::vector<Bucket> buckets_;
  size_t waiting_ = 0;  ///< buckets [0, waiting_) have not been started
};

}  // namespace qn
