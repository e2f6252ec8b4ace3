// Elements that a thread loads and stores 16 bytes at a time. Kernels are written for packs of N elements; with N = 1
// they take tensors that are not aligned or whose rows are no whole packs.
#pragma once

#include <bit>
#include <initializer_list>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {

/// Doubles, which nobody is in a hurry with, come one by one: half as many kernels to compile.
template <typename T>
constexpr int kPackOf = sizeof(T) == 8 ? 1 : 16 / static_cast<int>(sizeof(T));

/// In memory. Of types that are larger than the one that a kernel's packs are made for, it is several loads.
template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T values[N];
};

template <typename T>
using PairOf = std::conditional_t<std::is_same_v<T, bf16>, __nv_bfloat162, __half2>;

template <typename T>
__device__ PairOf<T> round_pair(float low, float high) {
  if constexpr (std::is_same_v<T, bf16>)
    return __floats2bfloat162_rn(low, high);
  else
    return __floats2half2_rn(low, high);
}

/// x = from[0 .. N), as numbers to compute with.
template <typename P, int N, typename T>
__device__ void load_pack(P (&x)[N], const T* from) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = static_cast<P>(pack.values[i]);
}

/// to[0 .. N) = x, rounded to T.
template <typename T, typename P, int N>
__device__ void store_pack(T* to, const P (&x)[N]) {
  Pack<T, N> pack;
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const PairOf<T> pair = round_pair<T>(x[i], x[i + 1]);
      pack.values[i] = pair.x;
      pack.values[i + 1] = pair.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) pack.values[i] = static_cast<T>(x[i]);
  }
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// The keep bits of elements i .. i + N - 1, the first one lowest; all set where there are none. i is a multiple of N.
template <int N>
__device__ uint32_t kept_pack(const uint32_t* bits, int64_t i) {
  return bits == nullptr ? ~0U : bits[i / 32] >> (i % 32);
}

/// f(std::integral_constant<int, N>): with N = kPack where every row, and everything that rows are made of, starts at a
/// multiple of 16 bytes and has whole packs; else with 1. `counts` are numbers of elements, such as columns.
template <int kPack, typename F>
void dispatch_pack(std::initializer_list<int64_t> counts, std::initializer_list<const void*> places, F&& f) {
  bool packed = true;
  for (const int64_t count : counts) packed = packed && count % kPack == 0;
  for (const void* place : places) packed = packed && reinterpret_cast<uintptr_t>(place) % 16 == 0;
  packed ? f(std::integral_constant<int, kPack>{}) : f(std::integral_constant<int, 1>{});
}

/// The same for the first `width` columns of rows whose other counts and places are these: f(pack, begin, width) for
/// the columns that are whole packs, then for those that are left, one by one.
template <int kPack, typename F>
void dispatch_columns(int64_t width, std::initializer_list<int64_t> counts, std::initializer_list<const void*> places,
                      F&& f) {
  dispatch_pack<kPack>(counts, places, [&](auto pack) {
    const int64_t whole = width / decltype(pack)::value * decltype(pack)::value;
    if (whole > 0) f(pack, int64_t{0}, whole);
    if (whole < width) f(std::integral_constant<int, 1>{}, whole, width - whole);
  });
}

/// A thread per pack of a row, and as many rows to a block as it has threads for. In kernels thread_index() is the
/// number of the pack in its row; rows come by turns: for (r = first_row(); r < rows; r += row_step()).
inline dim3 pack_block(int64_t packs) {
  const unsigned x = std::bit_ceil(static_cast<unsigned>(std::clamp<int64_t>(packs, 1, kThreads)));
  return {x, kThreads / x};
}
inline dim3 pack_grid(int64_t rows, int64_t packs) {
  const dim3 block = pack_block(packs);
  return {ceil_div(packs, block.x), std::min(ceil_div(rows, block.y), 65535U)};
}
__device__ inline int64_t first_row() { return static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; }
__device__ inline int64_t row_step() { return static_cast<int64_t>(gridDim.y) * blockDim.y; }

}  // namespace qn::cuda
