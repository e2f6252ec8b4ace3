// Launching kernels on the calling thread's stream, with the grids that most of them use.
#pragma once

#include <algorithm>
#include <utility>

#include "ops/cuda/check.h"
#include "ops/cuda/context.h"
#include "ops/cuda/start_kernel.cuh"

namespace qn::cuda {

inline constexpr int kThreads = 256;  // of a block, unless said otherwise

/// With so many bytes of dynamic shared memory. Nothing to do is no error here, though it is to CUDA.
template <typename... Params, typename... Args>
void launch_shared(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, Args&&... args) {
  if (grid.x == 0 || grid.y == 0) return;
  if (shared_bytes > size_t{48} << 10)  // more than that a kernel has to ask for
    QN_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  start_kernel(kernel, grid, block, shared_bytes, Context::current().stream(), std::forward<Args>(args)...);
  QN_CUDA_CHECK(cudaGetLastError());
}

template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, Args&&... args) {
  launch_shared(kernel, grid, block, 0, std::forward<Args>(args)...);
}

inline unsigned ceil_div(int64_t n, int64_t by) { return static_cast<unsigned>((n + by - 1) / by); }

/// For loops `for (i = thread_index(); i < n; i += thread_count())`.
inline dim3 flat_grid(int64_t n) { return {std::min(ceil_div(n, kThreads), 1U << 16)}; }

__device__ inline int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

/// One thread per column, rows by turns: `for (r = blockIdx.y; r < rows; r += gridDim.y)`. Spares the kernel a division
/// per element.
inline dim3 matrix_grid(int64_t rows, int64_t cols) {
  return {ceil_div(cols, kThreads), static_cast<unsigned>(std::min<int64_t>(rows, 65535))};
}

/// Eight rows per block, a warp each: block dim3(32, 8), row blockIdx.x * 8 + threadIdx.y.
inline constexpr int kWarpRows = 8;
inline dim3 warp_grid(int64_t rows) { return {ceil_div(rows, kWarpRows)}; }
inline dim3 warp_block() { return {32, kWarpRows}; }

}  // namespace qn::cuda
