// Reductions over the threads of a block, in an order that depends on the block's size only.
#pragma once

#include "ops/cuda/launch.cuh"

namespace qn::cuda {

struct Sum {
  template <typename P>
  __device__ P operator()(P a, P b) const {
    return a + b;
  }
};
struct Max {
  template <typename P>
  __device__ P operator()(P a, P b) const {
    return a > b ? a : b;
  }
};

/// The same result in every lane: both partners of an exchange combine the same two values, and `combine` commutes.
template <typename P, typename Combine>
__device__ P warp_reduce(P value, Combine combine) {
  for (int offset = 16; offset > 0; offset /= 2) value = combine(value, __shfl_xor_sync(0xffffffffU, value, offset));
  return value;
}

/// Every thread of a one-dimensional block of whole warps calls it and gets the result.
template <typename P, typename Combine>
__device__ P block_reduce(P value, Combine combine) {
  __shared__ P partial[32];
  value = warp_reduce(value, combine);
  __syncthreads();  // an earlier call's partial results have been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  P total = partial[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) total = combine(total, partial[w]);
  return total;
}

template <typename P>
__device__ P block_sum(P value) {
  return block_reduce(value, Sum{});
}
template <typename P>
__device__ P block_max(P value) {
  return block_reduce(value, Max{});
}

}  // namespace qn::cuda
