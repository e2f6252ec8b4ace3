// Collectives on the memory of devices, ordered with the kernels that write and read it. The interface knows no
// device's headers; the implementation is NCCL's, where the build has it.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "core/tensor.h"

namespace qn {

/// Calls do not wait on the host; all ranks must make the same ones in the same order, from one thread.
class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;
  virtual const char* name() const = 0;

  /// Starts an element-wise sum over all ranks, in place (f32 or f64), after what the kernels' stream has been given so
  /// far and beside what it is given later. No kernel may touch `x` before join(). Every rank ends with the same bits.
  virtual void start_all_reduce_sum(const Tensor& x) = 0;
  /// Starts to copy rank 0's bytes to every rank, in place; ordered as a sum is.
  virtual void start_broadcast(const Tensor& x) = 0;
  /// Kernels called from now on see the results of everything started.
  virtual void join() = 0;
};

/// Whether ranks that compute on one device can have one: with NCCL 2.30 or newer and NCCL_MULTI_RANK_GPU_ENABLE=1 in
/// the environment, which is an experiment of NCCL's and slow, but shows on one GPU what otherwise takes two.
bool device_communicator_may_share();

/// NCCL between the devices that the ranks' calling threads have selected, ordered with `stream` (a cudaStream_t);
/// collective. Null, after a line in the log that says why, where the program was built without NCCL or ranks share a
/// device and may not. Throws qn::Error, naming the rank, when NCCL fails; so do the calls above.
std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& comm, void* stream);

}  // namespace qn
