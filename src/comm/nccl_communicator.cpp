#include <cuda_runtime_api.h>
#include <nccl.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "comm/device_communicator.h"
#include "comm/transport_guard.h"
#include "core/activity.h"
#include "core/log.h"
#include "core/machine.h"

namespace qn {
namespace {

void check_cuda(cudaError_t status, const char* call, int rank) {
  QN_CHECK(status == cudaSuccess, "CUDA on rank {}: {} ({}) from {}", rank, cudaGetErrorString(status),
           cudaGetErrorName(status), call);
}
#define QN_CUDA(call) check_cuda(call, #call, rank_)

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

ncclDataType_t type_of(const Tensor& x) {
  QN_ASSERT(x.dtype == DType::f32 || x.dtype == DType::f64, "{}", name_of(x.dtype));
  return x.dtype == DType::f64 ? ncclFloat64 : ncclFloat32;
}

/// The communicator does not block: a call may return with the rest still to be done by a thread of NCCL's, and a rank
/// that is gone cannot hold this one inside NCCL.
class NcclCommunicator final : public DeviceCommunicator {
 public:
  NcclCommunicator(Communicator& comm, cudaStream_t kernels)
      : rank_(comm.rank()), kernels_(kernels), guard_([this] { return problem(); }, [this] { abort_from_watchdog(); }) {
    create_stream();
    ncclUniqueId id{};
    if (comm.is_root()) run("ncclGetUniqueId", [&] { return ncclGetUniqueId(&id); });
    comm.broadcast(std::as_writable_bytes(std::span(&id, 1)));
    const CollectiveScope collective("the set-up of NCCL");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    run("ncclCommInitRankConfig", [&] { return ncclCommInitRankConfig(&comm_, comm.size(), id, rank_, &config); });
  }

  ~NcclCommunicator() override {
    // While an exception ends this rank the others are elsewhere: finalizing would wait for them.
    if (std::uncaught_exceptions() == exceptions_) finalize();
    abort();
    cudaEventDestroy(ready_);
    cudaEventDestroy(finished_);
    cudaStreamDestroy(stream_);
  }

  const char* name() const override { return "nccl"; }

  // NCCL's algorithms (ring, tree, NVLS) reduce an element in one place and hand the result on, so all ranks end with
  // the same bits.
  void start_all_reduce_sum(const Tensor& x) override {
    start("all-reduce", x, [&] {
      return ncclAllReduce(x.data, x.data, static_cast<size_t>(x.elements()), type_of(x), ncclSum, comm_, stream_);
    });
  }

  void start_broadcast(const Tensor& x) override {
    start("broadcast", x,
          [&] { return ncclBroadcast(x.data, x.data, x.bytes(), ncclUint8, /*root=*/0, comm_, stream_); });
  }

  void join() override {
    QN_CUDA(cudaEventRecord(finished_, stream_));
    QN_CUDA(cudaStreamWaitEvent(kernels_, finished_, 0));
  }

 private:
  void create_stream() {
    // Where both have work, the device prefers the sums: other ranks wait for them.
    int least = 0, greatest = 0;
    QN_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    QN_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
    QN_CUDA(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming));
    QN_CUDA(cudaEventCreateWithFlags(&finished_, cudaEventDisableTiming));
  }

  template <typename Call>
  void start(const char* what, const Tensor& x, Call call) {
    const CollectiveScope collective(what);
    if (x.elements() == 0) return;
    QN_CUDA(cudaEventRecord(ready_, kernels_));
    QN_CUDA(cudaStreamWaitEvent(stream_, ready_, 0));
    run(what, call);
  }

  /// Calls NCCL and waits until it has queued what was asked for; not until the device has done it.
  template <typename Call>
  void run(const char* what, Call call) {
    constexpr int kEager = 1000;
    ncclResult_t status = locked(call);
    for (int polls = 0; status == ncclInProgress; ++polls) {
      if (polls < kEager)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      status = locked([this] { return state(); });
    }
    QN_CHECK(status == ncclSuccess, "NCCL on rank {}: {} failed: {}", rank_, what, explain(status));
  }

  /// One call at a time: asking for the state may itself complete what another thread's call began.
  template <typename Call>
  ncclResult_t locked(Call call) {
    for (;; std::this_thread::sleep_for(std::chrono::seconds(1))) {
      const std::lock_guard lock(calls_);
      // Once the watchdog ends this process, its message counts, not what NCCL would say of its end.
      if (!aborted_) return call();
    }
  }

  ncclResult_t state() const {
    ncclResult_t status = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &status);
    return asked != ncclSuccess ? asked : status;
  }

  std::string explain(ncclResult_t status) const {
    return fmt::format(
        "{} ({}). Look at the first rank that reports an error. NCCL_DEBUG=INFO shows what NCCL was doing, "
        "NCCL_SOCKET_IFNAME=<interface> names another network, comm.nccl=false goes through host memory",
        ncclGetErrorString(status), ncclGetLastError(comm_));
  }

  /// For the watchdog: errors that come up while this rank waits for its GPU.
  std::string problem() {
    const std::unique_lock lock(calls_, std::try_to_lock);
    if (!lock || comm_ == nullptr) return {};
    const ncclResult_t status = state();
    if (status == ncclSuccess || status == ncclInProgress) return {};
    return fmt::format("reports an error of NCCL: {}", explain(status));
  }

  void finalize() {
    const WaitingScope waiting("the end of NCCL");
    try {
      run("ncclCommFinalize", [this] { return ncclCommFinalize(comm_); });
      locked([this] { return ncclCommDestroy(std::exchange(comm_, nullptr)); });
    } catch (const std::exception& error) {
      warn_of_this_rank(error.what());
    }
  }

  void abort() {
    const std::lock_guard lock(calls_);
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  }

  /// From the watchdog's thread, when the process is about to end: makes kernels end that wait for other ranks.
  void abort_from_watchdog() {
    aborted_ = true;
    // The computing thread may hang in a call of NCCL; the process ends all the same.
    const std::unique_lock lock(calls_, std::chrono::seconds(1));
    if (lock && comm_ != nullptr) ncclCommAbort(comm_);
  }

  int rank_;
  int exceptions_ = std::uncaught_exceptions();
  cudaStream_t kernels_, stream_ = nullptr;
  cudaEvent_t ready_ = nullptr, finished_ = nullptr;
  std::timed_mutex calls_;
  std::atomic<bool> aborted_{false};
  ncclComm_t comm_ = nullptr;  // changed and used under calls_
  TransportGuard guard_;
};

/// Whether two ranks compute on the same device.
bool devices_are_shared(Communicator& comm) {
  int device = 0;
  std::array<char, 32> bus{};
  check_cuda(cudaGetDevice(&device), "cudaGetDevice", comm.rank());
  check_cuda(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device), "cudaDeviceGetPCIBusId",
             comm.rank());
  const std::vector<std::string> devices = comm.all_gather(machine_id() + ' ' + bus.data());
  return std::set<std::string>(devices.begin(), devices.end()).size() < devices.size();
}

}  // namespace

bool device_communicator_may_share() {
  constexpr int kFirst = 23000;  // NCCL 2.30
  const char* enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  int version = 0;
  return enabled != nullptr && std::string_view(enabled) == "1" && ncclGetVersion(&version) == ncclSuccess &&
         version >= kFirst;
}

std::unique_ptr<DeviceCommunicator> make_device_communicator(Communicator& comm, void* stream) {
  if (devices_are_shared(comm) && !device_communicator_may_share()) {
    spdlog::info("ranks share GPUs, which NCCL does not allow: gradients are summed over ranks in host memory");
    return nullptr;
  }
  auto nccl = std::make_unique<NcclCommunicator>(comm, static_cast<cudaStream_t>(stream));
  int version = 0;
  if (ncclGetVersion(&version) == ncclSuccess)
    spdlog::info("gradients are summed over ranks by NCCL {}", version_text(version));
  return nccl;
}

}  // namespace qn
