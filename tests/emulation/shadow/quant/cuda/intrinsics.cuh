// In place of src/quant/cuda/intrinsics.cuh: the same in C++.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#define QN_UNROLL
#define QN_KEEP_LOOP

namespace qn::cuda {

inline double times(double a, double b) {
  const volatile double product = a * b;  // keeps the compiler from contracting it into one operation with a sum
  return product;
}
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }

inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

template <typename T>
T* in_global(T* p) {
  return p;
}

}  // namespace qn::cuda
