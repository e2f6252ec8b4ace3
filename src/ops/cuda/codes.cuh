// What kernels for matrices of codes (ops/code_matrix.h) are made of: codes of four neighbouring rows at a time, inputs
// in shared memory as floats, sums that several blocks of threads share in a fixed order.
#pragma once

#include "ops/cuda/codes.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/packs.cuh"

namespace qn::cuda {

/// Of f32, bf16 or f16, told at run time: inputs are read and results written once per block of threads.
struct CodeInputs {
  void* data;
  DType dtype;
  int64_t rows, ld;
  bool aligned;  ///< four elements from a multiple of four on may be read at once
};

__device__ inline float element(const CodeInputs& x, int64_t i) {
  if (x.dtype == DType::bf16) return static_cast<float>(static_cast<const bf16*>(x.data)[i]);
  if (x.dtype == DType::f16) return static_cast<float>(static_cast<const f16*>(x.data)[i]);
  return static_cast<const float*>(x.data)[i];
}

__device__ inline void set_element(const CodeInputs& y, int64_t i, float value) {
  if (y.dtype == DType::bf16)
    static_cast<bf16*>(y.data)[i] = static_cast<bf16>(value);
  else if (y.dtype == DType::f16)
    static_cast<f16*>(y.data)[i] = static_cast<f16>(value);
  else
    static_cast<float*>(y.data)[i] = value;
}

/// x[0 .. 4) = elements i .. i + 3, zeros from the `valid`-th on; i is a multiple of 4.
__device__ inline void four_elements(float (&x)[4], const CodeInputs& from, int64_t i, int valid) {
  if (from.aligned && valid >= 4) {
    if (from.dtype == DType::bf16) return load_pack(x, static_cast<const bf16*>(from.data) + i);
    if (from.dtype == DType::f16) return load_pack(x, static_cast<const f16*>(from.data) + i);
    return load_pack(x, static_cast<const float*>(from.data) + i);
  }
#pragma unroll
  for (int v = 0; v < 4; ++v) x[v] = v < valid ? element(from, i + v) : 0.0f;
}

/// A product as kernels get it. Blocks of threads are (tile of results, part of the sum, group of tokens).
struct CodeProduct {
  CodeMatrix w;
  CodeInputs x, y;
  int64_t column;     ///< of y, at which results begin
  int blocks;         ///< of the weight
  int part_blocks;    ///< that a part adds up
  float* sums;        ///< [group of tokens, tile, part, sums of a block of threads]; null with one part
  uint32_t* arrived;  ///< [group of tokens, tile] zeros
};

// ---- codes
// -----------------------------------------------------------------------------------------------------------

/// Bits [bit, bit + 64) of a stream, in whole words: up to 11 bytes behind the bit's own are read.
__device__ inline uint64_t bits_from(const uint8_t* codes, uint64_t bit) {
  const uint32_t* words = reinterpret_cast<const uint32_t*>(codes) + bit / 32;
  const auto shift = static_cast<uint32_t>(bit) % 32;
  const uint32_t low = words[0], middle = words[1], high = words[2];
  return static_cast<uint64_t>(__funnelshift_r(middle, high, shift)) << 32 | __funnelshift_r(low, middle, shift);
}

/// Four rows of a matrix of blocks that a thread looks after: their codes are a quarter of a word each, so of up to 8
/// or 16 bits; those of rows that are not there are 0.
template <typename Word>
class FourRows {
 public:
  static constexpr int kLane = static_cast<int>(sizeof(Word)) * 2;
  __device__ FourRows(const CodeMatrix& w, int64_t row)
      : codes_(w.codes),
        bits_(w.bits),
        row_bits_(static_cast<uint64_t>(row < w.rows ? row : 0) * static_cast<unsigned>(w.bits)),
        column_bits_(static_cast<uint64_t>(w.rows) * static_cast<unsigned>(w.bits)),
        whole_(w.bits == kLane && w.rows % 4 == 0) {
    const int64_t valid = w.rows - row;
    keep_ = valid >= 4 ? ~Word{0} : valid <= 0 ? Word{0} : (Word{1} << (static_cast<int>(valid) * kLane)) - 1;
  }
  /// codes[i] = those of block column j(i).
  template <int N, typename Column>
  __device__ void load(Word (&codes)[N], const Column& j) const {
    if (whole_) {  // a load each, and none waits for another
      const uint8_t* from = codes_ + row_bits_ / 8;
      const auto step = static_cast<unsigned>(column_bits_ / 8);
#pragma unroll
      for (int i = 0; i < N; ++i) codes[i] = *reinterpret_cast<const Word*>(from + static_cast<uint64_t>(j(i)) * step);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) codes[i] = spread(bits_from(codes_, j(i) * column_bits_ + row_bits_));
    }
#pragma unroll
    for (int i = 0; i < N; ++i) codes[i] &= keep_;
  }
  __device__ static unsigned code(Word codes, int v) {
    return static_cast<unsigned>(codes >> (v * kLane)) & ((1U << kLane) - 1);
  }

 private:
  __device__ Word spread(uint64_t window) const {
    const Word mask = (Word{1} << bits_) - 1;
    Word codes = 0;
#pragma unroll
    for (int v = 0; v < 4; ++v) codes |= (static_cast<Word>(window >> (v * bits_)) & mask) << (v * kLane);
    return codes;
  }

  const uint8_t* codes_;
  int bits_;
  uint64_t row_bits_, column_bits_;
  bool whole_;
  Word keep_;
};

__device__ inline float row_scale(const CodeMatrix& w, int64_t row) {
  return w.row_scales == nullptr ? 1.0f : w.row_scale_values[w.row_scales[row]];
}

/// Centroids by four columns: in shared memory as planes [columns / 4, levels], which spreads look-ups over all banks,
/// or where they are.
template <bool kShared>
class Centroids {
 public:
  __device__ Centroids(const CodeMatrix& w, const float4* planes) : w_(w), planes_(planes) {}
  /// Columns [4 plane, 4 plane + 4) of centroid `code`, filled up with zeros.
  __device__ float4 at(unsigned code, int plane) const {
    if constexpr (kShared) return planes_[plane * static_cast<int>(w_.levels) + static_cast<int>(code)];
    return in_memory(w_, code, plane);
  }
  __device__ static float4 in_memory(const CodeMatrix& w, int64_t code, int plane) {
    const float* from = w.centroids + code * w.block + 4 * plane;
    if (w.block % 4 == 0) return *reinterpret_cast<const float4*>(from);
    const int64_t left = w.block - 4 * plane;
    return {from[0], left > 1 ? from[1] : 0.0f, left > 2 ? from[2] : 0.0f, left > 3 ? from[3] : 0.0f};
  }

 private:
  const CodeMatrix& w_;
  const float4* planes_;
};

__host__ __device__ inline int planes_of(const CodeMatrix& w) { return static_cast<int>((w.block + 3) / 4); }

/// Planes [first, first + count) of the centroids, by the whole block of threads.
__device__ inline void stage_centroids(float4* planes, const CodeMatrix& w, int first, int count) {
  const int levels = static_cast<int>(w.levels);
  for (int k = static_cast<int>(threadIdx.x); k < levels; k += kThreads)
    for (int p = 0; p < count; ++p) planes[p * levels + k] = Centroids<false>::in_memory(w, k, first + p);
}

// ---- inputs and results
// ----------------------------------------------------------------------------------------------

template <int kN, int kWidth, typename T, typename Column>
__device__ void stage_inputs_of(float* to, int width, const CodeInputs& x, int64_t first, const Column& column) {
  const T* from = static_cast<const T*>(x.data) + first * x.ld;
  const int tokens = static_cast<int>(x.rows - first);
  const auto stage = [=](int i) {
    const int c = column(i);
    const bool inside = c >= 0 && c < x.ld;
#pragma unroll
    for (int n = 0; n < kN; ++n) {  // what is not there is read elsewhere: loads must not wait for each other
      const auto value = static_cast<float>(from[(n < tokens ? n : 0) * x.ld + (inside ? c : 0)]);
      to[n * width + i] = inside && n < tokens ? value : 0.0f;
    }
  };
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i + kThreads <= kWidth; i += kThreads) stage(i + thread);
  if constexpr (kWidth > 0 && kWidth < kThreads) {
    if (thread < kWidth) stage(thread);
  } else if constexpr (kWidth == 0) {
    for (int i = thread; i < width; i += kThreads) stage(i);
  }
}

/// to[n, i] = x[first + n, column(i)] for i < width, n < kN; zeros where there is no such token or column. `first` is
/// there. kWidth: `width` where it is known, a multiple of kThreads or less than that, else 0.
template <int kN, int kWidth = 0, typename Column>
__device__ void stage_inputs(float* to, int width, const CodeInputs& x, int64_t first, const Column& column) {
  static_assert(kWidth < kThreads || kWidth % kThreads == 0);
  if (x.dtype == DType::bf16) return stage_inputs_of<kN, kWidth, bf16>(to, width, x, first, column);
  if (x.dtype == DType::f16) return stage_inputs_of<kN, kWidth, f16>(to, width, x, first, column);
  stage_inputs_of<kN, kWidth, float>(to, width, x, first, column);
}

/// Whether this block of threads is the last of `count` to get here, each after having written its part: it then sees
/// the others' parts, and leaves the counter as it was.
__device__ inline bool is_last_part(uint32_t* arrived, unsigned count) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(arrived, count - 1) == count - 1;
  __syncthreads();
  __threadfence();
  return last;
}

/// Stores the results of a tile of kRows rows and kN tokens, total(n * kRows + row) being this block's part of the sum.
/// Parts are added up in their order by whichever block comes last.
template <int kN, int kRows, typename Total>
__device__ void finish_rows(const CodeProduct& p, const Total& total) {
  constexpr int kSums = kN * kRows;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows, token = static_cast<int64_t>(blockIdx.z) * kN;
  const auto store = [&](int i, float sum) {
    const int64_t r = first + i % kRows, n = token + i / kRows;
    if (r < p.w.rows && n < p.y.rows) set_element(p.y, n * p.y.ld + p.column + r, sum * row_scale(p.w, r));
  };
  if (gridDim.y == 1) {
    for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) store(i, total(i));
    return;
  }
  const int64_t tile = static_cast<int64_t>(blockIdx.z) * gridDim.x + blockIdx.x;
  float* sums = p.sums + tile * gridDim.y * kSums;
  for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) sums[blockIdx.y * kSums + i] = total(i);
  if (!is_last_part(p.arrived + tile, gridDim.y)) return;
  for (int i = static_cast<int>(threadIdx.x); i < kSums; i += kThreads) {
    float sum = 0.0f;
#pragma unroll 4
    for (unsigned part = 0; part < gridDim.y; ++part) sum += __ldcg(sums + part * kSums + i);
    store(i, sum);
  }
}

// ---- launching
// -------------------------------------------------------------------------------------------------------

/// f(std::integral_constant<int, N>) with the smallest group that has room for the tokens.
template <typename F>
void with_group(int64_t tokens, F&& f) {
  if (tokens > 4) return f(std::integral_constant<int, 8>{});
  if (tokens > 2) return f(std::integral_constant<int, 4>{});
  tokens > 1 ? f(std::integral_constant<int, 2>{}) : f(std::integral_constant<int, 1>{});
}

/// Kernels load words of codes, and centroids by four elements.
void check_alignment(const CodeMatrix& weight);

CodeProduct product_of(const CodeMatmulArgs& args);

/// The grid of a product with `tiles` tiles of `sums` results each, and memory for parts of sums: scratch, so open a
/// ScratchScope around the launch. Parts begin at multiples of `step` blocks. Depends on shapes only, as results do.
dim3 share_out(CodeProduct& p, int64_t tiles, int64_t groups, int64_t sums, int64_t step);

}  // namespace qn::cuda
