// Loops over elements and rows, and the choice of element type, shared by the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/tensor.h"

namespace qn::cpu {

/// Calls f(T{}) with the tensor's floating type.
template <typename F>
void dispatch_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    default:
      QN_ASSERT(false, "no floating type: {}", name_of(dtype));
  }
}

/// f(begin, end) over chunks of [0, n), in parallel when there is enough work. Chunks are multiples of 128 elements,
/// so words of keep bits are never shared.
template <typename F>
void parallel_chunks(int64_t n, F&& f) {
  constexpr int64_t kChunk = 16384;
  const int64_t chunks = (n + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) if (chunks > 1)
  for (int64_t c = 0; c < chunks; ++c) f(c * kChunk, std::min(n, (c + 1) * kChunk));
}

/// f(row) for each row, in parallel when rows * cols is worth it.
template <typename F>
void parallel_rows(int64_t rows, int64_t cols, F&& f) {
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
  for (int64_t r = 0; r < rows; ++r) f(r);
}

}  // namespace qn::cpu
