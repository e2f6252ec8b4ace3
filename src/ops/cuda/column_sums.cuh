// Sums over the rows of a matrix, column by column, in a fixed order: groups of rows first, then the groups.
#pragma once

#include "ops/cuda/launch.cuh"

namespace qn::cuda {

inline constexpr int kColumnLanes = 8;  // rows of a group that a block adds up side by side
inline constexpr int64_t kRowsPerGroup = 64;
inline constexpr int64_t kMaxGroups = 512;

/// partial[group, c] = sum of term(r, c) over the rows of the group. Block (32, kColumnLanes), grid (columns, groups).
template <typename P, typename Term>
__global__ void sum_row_groups(Term term, P* partial, int64_t rows, int64_t cols) {
  __shared__ P sums[kColumnLanes][33];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
  P sum = 0;
  if (c < cols)
    for (int64_t r = begin + threadIdx.y; r < end; r += kColumnLanes) sum += term(r, c);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
  for (int lane = 1; lane < kColumnLanes; ++lane) sum += sums[lane][threadIdx.x];
  partial[blockIdx.y * cols + c] = sum;
}

/// out[c] = beta * out[c] + sum over groups of partial[group, c]
template <typename P>
__global__ void add_groups(P* out, const P* partial, int64_t groups, int64_t cols, int beta) {
  for (int64_t c = thread_index(); c < cols; c += thread_count()) {
    P sum = beta != 0 ? out[c] : P{0};
    for (int64_t g = 0; g < groups; ++g) sum += partial[g * cols + c];
    out[c] = sum;
  }
}

/// out[c] = beta * out[c] + sum over r of term(r, c), r < rows, c < cols. `term` is callable on the device.
template <typename P, typename Term>
void column_sums(P* out, const Term& term, int64_t rows, int64_t cols, int beta) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t groups = std::clamp<int64_t>(rows / kRowsPerGroup, 1, kMaxGroups);
  auto* partial = static_cast<P*>(context.scratch().allocate(static_cast<size_t>(groups * cols) * sizeof(P)));
  launch(sum_row_groups<P, Term>, dim3(ceil_div(cols, 32), static_cast<unsigned>(groups)), dim3(32, kColumnLanes), term,
         partial, rows, cols);
  launch(add_groups<P>, flat_grid(cols), kThreads, out, partial, groups, cols, beta);
}

}  // namespace qn::cuda
