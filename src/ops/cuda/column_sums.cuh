// Sums over the rows of a matrix, column by column, in a fixed order: groups of rows first, then the groups.
#pragma once

#include "ops/cuda/packs.cuh"

namespace qn::cuda {

inline constexpr int kColumnLanes = 8;  // rows of a group (then groups) that a block adds up side by side
inline constexpr int64_t kRowsPerGroup = 64;
inline constexpr int64_t kMaxGroups = 512;

/// Where K sums of each column go: out[c] = beta * out[c] + sum.
template <typename P, int K>
struct SumsOut {
  P* out[K];
  int beta[K];
};

/// Over the block's lanes, in their order; the result is in lane 0. Called by all threads of the block.
template <int N, typename P>
__device__ void add_lanes(P (&sum)[N]) {
  __shared__ P lanes[kColumnLanes][32 * N + 1];
  __syncthreads();  // what an earlier call left has been read
#pragma unroll
  for (int j = 0; j < N; ++j) lanes[threadIdx.y][threadIdx.x + 32 * j] = sum[j];
  __syncthreads();
  if (threadIdx.y != 0) return;
  for (int lane = 1; lane < kColumnLanes; ++lane)
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += lanes[lane][threadIdx.x + 32 * j];
}

/// partial[group, k, c] = the sum of term k over the rows of the group. Block (32, kColumnLanes), grid (packs of N
/// columns, groups).
template <int N, int K, typename P, typename Term>
__global__ void sum_row_groups(Term term, P* partial, int64_t rows, int64_t cols) {
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x) * N;
  const int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
  P sums[K][N] = {};
  if (c < cols)
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += kColumnLanes) term.add(sums, r, c);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    add_lanes(sums[k]);
    if (threadIdx.y == 0 && c < cols) store_pack(partial + (blockIdx.y * K + k) * cols + c, sums[k]);
  }
}

// Block (32, kColumnLanes), grid (columns, K).
template <int K, typename P>
__global__ void add_groups(SumsOut<P, K> to, const P* partial, int64_t groups, int64_t cols) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x, k = blockIdx.y;
  P sum[1] = {};
  if (c < cols)
#pragma unroll 8
    for (int64_t g = threadIdx.y; g < groups; g += kColumnLanes) sum[0] += partial[(g * K + k) * cols + c];
  add_lanes(sum);
  if (threadIdx.y == 0 && c < cols) to.out[k][c] = (to.beta[k] != 0 ? to.out[k][c] : P{0}) + sum[0];
}

/// `term` is callable on the device: term.add(sums, r, c) adds what row r has for columns c .. c + N - 1 to sums[K][N].
template <int N, int K, typename P, typename Term>
void column_sums(const SumsOut<P, K>& to, const Term& term, int64_t rows, int64_t cols) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t groups = std::clamp<int64_t>(rows / kRowsPerGroup, 1, kMaxGroups);
  auto* partial = static_cast<P*>(context.scratch().allocate(static_cast<size_t>(groups * K * cols) * sizeof(P)));
  const dim3 block{32, kColumnLanes};
  launch(sum_row_groups<N, K, P, Term>, dim3(ceil_div(cols, 32 * N), static_cast<unsigned>(groups)), block, term,
         partial, rows, cols);
  launch(add_groups<K, P>, dim3(ceil_div(cols, 32), K), block, to, partial, groups, cols);
}

template <typename Term>
struct SingleTerm {
  Term term;
  template <typename P>
  __device__ void add(P (&sums)[1][1], int64_t r, int64_t c) const {
    sums[0][0] += term(r, c);
  }
};

/// out[c] = beta * out[c] + sum over r of term(r, c), r < rows, c < cols. `term` is callable on the device.
template <typename P, typename Term>
void column_sums(P* out, const Term& term, int64_t rows, int64_t cols, int beta) {
  column_sums<1, 1>(SumsOut<P, 1>{{out}, {beta}}, SingleTerm<Term>{term}, rows, cols);
}

}  // namespace qn::cuda
