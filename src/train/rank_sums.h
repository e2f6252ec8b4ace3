// Sums of tensors over the ranks of a job, in whatever memory they are.
#pragma once

#include "comm/communicator.h"
#include "comm/device_communicator.h"
#include "ops/tape.h"

namespace qn {

class RankSums : public SumOverRanks {
 public:
  /// `device` may be null: then what is not in host memory travels through it. All must outlive this.
  RankSums(const Kernels& kernels, Communicator& comm, DeviceCommunicator* device)
      : kernels_(kernels), comm_(comm), device_(device) {}

  /// f32 or f64, in the kernels' memory.
  void sum(const Tensor& values) const override;

 private:
  const Kernels& kernels_;
  Communicator& comm_;
  DeviceCommunicator* device_;
};

}  // namespace qn
