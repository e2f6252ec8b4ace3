// In place of src/ops/cuda/start_kernel.cuh.
#pragma once

#include <cuda_runtime_api.h>

#include <tuple>

#include "streams.h"

namespace qn::cuda {

template <typename... Params, typename... Args>
void start_kernel(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                  Args&&... args) {
  emulation::enqueue(stream, [=, held = std::tuple<Params...>(static_cast<Params>(args)...)] {
    emulation::run_kernel(grid, block, shared_bytes, [&] { std::apply(kernel, held); });
  });
}

template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulation::shared_memory());
}

}  // namespace qn::cuda
