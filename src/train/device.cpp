#include "train/device.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/machine.h"
#include "ops/cuda/backend.h"

namespace qn {

LocalRank local_rank(std::span<const std::string> hosts, int rank) {
  const auto own = hosts.begin() + rank;
  return {static_cast<int>(std::count(hosts.begin(), own, *own)),
          static_cast<int>(std::count(hosts.begin(), hosts.end(), *own))};
}

int gpu_of(const LocalRank& local, int gpus, bool share) {
  QN_ASSERT(gpus > 0);
  QN_CHECK_USAGE(share || local.size <= gpus,
                 "{} ranks on this machine, but {} GPU{}: start at most one rank per GPU, or let ranks share them with "
                 "--share-gpu",
                 local.size, gpus, gpus == 1 ? "" : "s");
  return local.rank % gpus;
}

const Kernels& kernels_on(DeviceKind kind, bool share_gpu, Communicator& comm) {
  if (kind == DeviceKind::cpu) return cpu_kernels();
  const std::vector<std::string> hosts = comm.all_gather(host_name());
  const int gpus = cuda_device_count();
  QN_CHECK_USAGE(gpus > 0, "--device cuda: {}", cuda_problem());
  const int gpu = gpu_of(local_rank(hosts, comm.rank()), gpus, share_gpu);
  select_cuda_device(gpu);
  spdlog::info("rank {} of {} computes on GPU {} of {}", comm.rank(), comm.size(), gpu, host_name());
  return cuda_kernels();
}

std::unique_ptr<DeviceCommunicator> device_communicator(const Kernels& kernels, Communicator& comm) {
  const Device device(kernels);
  return device.is_cuda() && comm.size() > 1 ? make_device_communicator(comm, device.stream()) : nullptr;
}

}  // namespace qn
