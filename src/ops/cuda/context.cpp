#include "ops/cuda/context.h"

#include <cstring>

#include "core/activity.h"
#include "ops/cuda/check.h"
#include "ops/cuda/matmul_plans.h"
#include "ops/cuda/pinned_memory.h"

namespace qn::cuda {
namespace {

constexpr const char* kWaiting = "kernels of its GPU";  // what the host says it is doing

void* allocate_device(size_t bytes) {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    size_t free_bytes = 0, total = 0;
    cudaGetLastError();  // or the next check would report it again
    cudaMemGetInfo(&free_bytes, &total);
    fail(
        "the GPU has {} MiB free of {}, {} MiB are needed: use smaller batches (data.max_tokens) or more micro-batches",
        free_bytes >> 20, total >> 20, bytes >> 20);
  }
  QN_CUDA_CHECK(status);
  QN_CUDA_CHECK(cudaMemset(p, 0, std::max<size_t>(bytes, 1)));
  QN_CUDA_CHECK(cudaDeviceSynchronize());  // the zeros are not ordered with the streams of the kernels otherwise
  return p;
}

/// Never throws: it runs in destructors. Kernels in flight may still use the memory.
void release_device(void* p) {
  cudaDeviceSynchronize();
  cudaFree(p);
}

}  // namespace

const Memory& device_memory() {
  static const Memory memory{"cuda", allocate_device, release_device};
  return memory;
}

Context& Context::current() {
  static thread_local std::unique_ptr<Context> context;
  if (!context) context = std::make_unique<Context>();
  return *context;
}

Context::Context()
    : staging_(2 * kStagingHalf, pinned_memory()),
      pass_numbers_(2 * sizeof(uint32_t), device_memory()),
      scratch_(device_memory()) {
  QN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  for (cudaEvent_t& event : events_) QN_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  plans_ = std::make_unique<MatmulPlans>();
}

Context::~Context() {
  cudaStreamSynchronize(stream_);
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

/// Room for a copy that has not ended when this returns.
std::byte* Context::staging_place(size_t bytes) {
  if (staged_ + bytes > kStagingHalf) {
    half_done_[half_] = mark();
    half_ = 1 - half_;
    staged_ = 0;
    wait(half_done_[half_]);
  }
  std::byte* place = staging_.data() + half_ * kStagingHalf + staged_;
  staged_ += (bytes + 63) / 64 * 64;
  return place;
}

void Context::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes == 0 || recording_) return;
  if (bytes > kStagingHalf) {
    const WaitingScope waiting(kWaiting);
    QN_CUDA_CHECK(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_));
    QN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    return;
  }
  // Small ones (indices) must not make the host wait for the kernels queued before.
  std::byte* place = staging_place(bytes);
  std::memcpy(place, from_host, bytes);
  QN_CUDA_CHECK(cudaMemcpyAsync(to, place, bytes, cudaMemcpyHostToDevice, stream_));
}

void Context::download(void* to_host, const void* from, size_t bytes) {
  QN_ASSERT(!recording_, "a pass that the host waits in cannot be recorded");
  const WaitingScope waiting(kWaiting);
  if (bytes > 0) QN_CUDA_CHECK(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_));
  QN_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void Context::start_download(void* to, const void* from, size_t bytes) {
  if (bytes > 0) QN_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
}

int64_t Context::mark() {
  ++marks_;
  QN_CUDA_CHECK(cudaEventRecord(events_[static_cast<size_t>(marks_) % events_.size()], stream_));
  return marks_;
}

/// An event that was recorded again since then lies behind the mark: waiting takes longer, and is right.
void Context::wait(int64_t mark) {
  QN_ASSERT(mark <= marks_, "mark {} of {}", mark, marks_);
  const WaitingScope waiting(kWaiting);
  if (mark > 0) QN_CUDA_CHECK(cudaEventSynchronize(events_[static_cast<size_t>(mark) % events_.size()]));
}

}  // namespace qn::cuda
