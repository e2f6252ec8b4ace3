// The backend that a command computes on: `--device` and `--share-gpu`.
#pragma once

#include <span>
#include <string>

#include "comm/communicator.h"
#include "comm/device_communicator.h"
#include "ops/device.h"

namespace qn {

/// Where a rank stands among the ranks of its machine.
struct LocalRank {
  int rank = 0, size = 1;
};
/// Of rank `rank`, from every rank's host name in rank order.
LocalRank local_rank(std::span<const std::string> hosts, int rank);

/// The GPU of a rank: its local rank, or with `share` that modulo the GPUs. Throws qn::Error, naming both numbers, when
/// there are more ranks than GPUs and they may not share.
int gpu_of(const LocalRank& local, int gpus, bool share);

/// The kernels of `kind` for this rank, after selecting its GPU; collective. Throws qn::Error with what to do where
/// there is no GPU, or too few.
const Kernels& kernels_on(DeviceKind kind, bool share_gpu, Communicator& comm);

/// NCCL between the GPUs of the ranks, ordered with the kernels of the calling thread; collective. Null for one rank,
/// for kernels of another backend, and where NCCL cannot be used, which is then logged.
std::unique_ptr<DeviceCommunicator> device_communicator(const Kernels& kernels, Communicator& comm);

}  // namespace qn
