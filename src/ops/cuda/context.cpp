#include "ops/cuda/context.h"

#include <cstring>

#include "core/activity.h"
#include "ops/cuda/check.h"
#include "ops/cuda/matmul_plans.h"

namespace qn::cuda {
namespace {

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

Context::Context() : scratch_(device_memory()) {
  QN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  void* staging = nullptr;
  QN_CUDA_CHECK(cudaMallocHost(&staging, kStaging));
  staging_ = static_cast<std::byte*>(staging);
  plans_ = std::make_unique<MatmulPlans>();
}

Context::~Context() {
  cudaStreamSynchronize(stream_);
  cudaFreeHost(staging_);
  cudaStreamDestroy(stream_);
}

void Context::upload(void* to, const void* from_host, size_t bytes) {
  if (bytes == 0) return;
  if (bytes > kStaging) {
    QN_CUDA_CHECK(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_));
    QN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    return;
  }
  // Small ones (indices) must not make the host wait for the kernels queued before: they go through a buffer of their
  // own, which is used again from the start once all copies out of it are done.
  if (staged_ + bytes > kStaging) {
    QN_CUDA_CHECK(cudaStreamSynchronize(stream_));
    staged_ = 0;
  }
  std::memcpy(staging_ + staged_, from_host, bytes);
  QN_CUDA_CHECK(cudaMemcpyAsync(to, staging_ + staged_, bytes, cudaMemcpyHostToDevice, stream_));
  staged_ += (bytes + 63) / 64 * 64;
}

void Context::download(void* to_host, const void* from, size_t bytes) {
  const WaitingScope waiting("kernels of its GPU");
  if (bytes > 0) QN_CUDA_CHECK(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_));
  QN_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

}  // namespace qn::cuda
