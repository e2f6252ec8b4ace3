// Included before every source of the CUDA backend that is compiled for the emulated device: the part of CUDA C++ that
// nvcc would provide.
#pragma once

// The C header: device code calls exp(), sqrt() and the like without a namespace.
#include <math.h>
//
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>

#include "device.h"

#undef __shared__
#define __shared__ static  // blocks run one after the other
#define __launch_bounds__(...)
#define threadIdx ::qn::emulation::thread_idx
#define blockIdx ::qn::emulation::block_idx
#define blockDim ::qn::emulation::block_dim
#define gridDim ::qn::emulation::grid_dim

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline void __syncthreads() { qn::emulation::sync_threads(); }

namespace qn::emulation {

inline void check_full_warp(unsigned mask) {
  if (mask != 0xffffffffU) refuse("only whole warps take part in warp functions here");
}

template <typename T>
T from_lane(T value, unsigned source) {
  static_assert(sizeof(T) <= kExchangeBytes);
  const std::byte* all = exchange(&value, sizeof value);
  std::memcpy(&value, all + source % kWarp * kExchangeBytes, sizeof value);
  end_exchange();
  return value;
}

}  // namespace qn::emulation

inline void __syncwarp(unsigned mask = 0xffffffffU) {
  qn::emulation::check_full_warp(mask);
  qn::emulation::sync_warp();
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  qn::emulation::check_full_warp(mask);
  return qn::emulation::from_lane(value, qn::emulation::lane() ^ static_cast<unsigned>(offset));
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  qn::emulation::check_full_warp(mask);
  return qn::emulation::from_lane(value, static_cast<unsigned>(source));
}

inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  qn::emulation::check_full_warp(mask);
  const std::byte* all = qn::emulation::exchange(&predicate, sizeof predicate);
  unsigned bits = 0;
  for (unsigned i = 0; i < qn::emulation::kWarp; ++i)
    if (all[i * qn::emulation::kExchangeBytes] != std::byte{0}) bits |= 1U << i;
  qn::emulation::end_exchange();
  return bits;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift % 32));
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
inline void __threadfence() {}

// Only one thread runs at a time.
inline unsigned atomicInc(unsigned* address, unsigned last) {
  const unsigned old = *address;
  *address = old >= last ? 0 : old + 1;
  return old;
}
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
