// The two things that only nvcc can compile: tests on an emulated device have a header of their own in place of this.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

namespace qn::cuda {

/// Queues a kernel on a stream. Errors of the launch are left for cudaGetLastError().
template <typename... Params, typename... Args>
void start_kernel(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                  Args&&... args) {
  kernel<<<grid, block, shared_bytes, stream>>>(std::forward<Args>(args)...);
}

/// The dynamic shared memory of the block, aligned to 128 bytes.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char qn_dynamic_shared[];
  return reinterpret_cast<T*>(qn_dynamic_shared);
}

}  // namespace qn::cuda
