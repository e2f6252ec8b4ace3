// What the language leaves to the compiler, and k-means must not: arithmetic that rounds exactly as the CPU's does,
// where pointers that kernels find in memory point to, which loops to unroll.
#pragma once

#include <cstdint>

#define QN_UNROLL _Pragma("unroll")
#define QN_KEEP_LOOP _Pragma("unroll 1")

namespace qn::cuda {

/// a * b, rounded: never contracted into one operation with a sum.
__device__ inline double times(double a, double b) { return __dmul_rn(a, b); }
/// a * b + c, rounded once.
__device__ inline double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

__device__ inline uint32_t bits_of(float value) { return __float_as_uint(value); }

/// `p`, which points to global memory: spares the instructions that find that out, and atomics a detour.
template <typename T>
__device__ inline T* in_global(T* p) {
  __builtin_assume(__isGlobal(p));
  return p;
}

}  // namespace qn::cuda
