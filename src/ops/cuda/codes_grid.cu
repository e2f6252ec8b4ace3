// Products with scalar grids of 2 to 8 bits, whose codes run along rows.
#include "ops/cuda/codes.cuh"
#include "ops/cuda/reduce.cuh"

namespace qn::cuda {
namespace {

// Of a block of threads: two warps' rows side by side, four warps along a row, a lane with eight codes at a time.
constexpr int kRowsOfWarp = 4, kRows = 2 * kRowsOfWarp, kAlong = 4;
constexpr int kOctets = 32 * kAlong, kChunk = 8 * kOctets;  // columns at a time

/// Codes of columns [column, column + 8) of a row, of which some may lie behind it. kBits: 8 or 4 where rows begin with
/// words, else 0.
template <int kBits>
__device__ uint64_t eight_codes(const CodeMatrix& w, int64_t row, int64_t column) {
  const int64_t first = row * w.cols + column;
  if constexpr (kBits == 8) return reinterpret_cast<const uint64_t*>(w.codes)[first / 8];
  if constexpr (kBits == 4) return reinterpret_cast<const uint32_t*>(w.codes)[first / 8];
  return bits_from(w.codes, static_cast<uint64_t>(first) * static_cast<unsigned>(w.bits));
}

/// Number `i` of eight, as a float.
template <int kBits>
__device__ float value_of(uint64_t codes, int i, int bits) {
  const int width = kBits > 0 ? kBits : bits;
  return static_cast<float>(static_cast<uint32_t>(codes >> (i * width)) & ((1U << width) - 1));
}

/// Floats [token, half of eight, octet, 4] of a chunk's columns: neighbouring lanes read neighbouring places.
__device__ inline int column_of_place(int i) { return i % (4 * kOctets) / 4 * 8 + i / (4 * kOctets) * 4 + i % 4; }

template <int kN, int kBits>
__global__ void __launch_bounds__(kThreads, 2) grid_kernel(CodeProduct p) {
  auto* xs = dynamic_shared<float>();
  __shared__ float all[kThreads / 32][kN * kRowsOfWarp];
  const int warp = static_cast<int>(threadIdx.x) / 32, octet = static_cast<int>(threadIdx.x) % kOctets;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows + warp / kAlong * kRowsOfWarp;
  const int64_t token = static_cast<int64_t>(blockIdx.z) * kN, last = p.w.rows - 1;
  float zeros[kRowsOfWarp], sums[kRowsOfWarp][kN] = {};
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r)
    zeros[r] = p.w.zero_points[p.w.grid_per_row ? (first + r < last ? first + r : last) : 0];
  for (int begin = 0; begin < p.blocks; begin += kChunk) {
    uint64_t codes[kRowsOfWarp];
    const int64_t column = begin + octet * 8;
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r)  // inputs are zeros where there is no column
      codes[r] = eight_codes<kBits>(p.w, first + r < last ? first + r : last, column < p.w.cols ? column : 0);
    stage_inputs<kN, kChunk>(xs, kChunk, p.x, token, [=](int i) { return begin + column_of_place(i); });
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[kRowsOfWarp][4];
#pragma unroll
      for (int r = 0; r < kRowsOfWarp; ++r)
#pragma unroll
        for (int i = 0; i < 4; ++i) values[r][i] = value_of<kBits>(codes[r], half * 4 + i, p.w.bits) - zeros[r];
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const auto x = *reinterpret_cast<const float4*>(xs + n * kChunk + (half * kOctets + octet) * 4);
#pragma unroll
        for (int r = 0; r < kRowsOfWarp; ++r)
          sums[r][n] += values[r][0] * x.x + values[r][1] * x.y + values[r][2] * x.z + values[r][3] * x.w;
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int n = 0; n < kN; ++n)
#pragma unroll
    for (int r = 0; r < kRowsOfWarp; ++r) {
      const float sum = warp_reduce(sums[r][n], Sum{});
      if (threadIdx.x % 32 == 0) all[warp][n * kRowsOfWarp + r] = sum;
    }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x), n = i / kRows, r = i % kRows;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + r;
  if (n >= kN || row > last || token + n >= p.y.rows) return;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kAlong; ++k) sum += all[r / kRowsOfWarp * kAlong + k][n * kRowsOfWarp + r % kRowsOfWarp];
  set_element(p.y, (token + n) * p.y.ld + p.column + row, sum * p.w.scales[p.w.grid_per_row ? row : 0]);
}

}  // namespace

void product_of_grid(const CodeMatmulArgs& args) {
  const CodeProduct p = product_of(args);
  const bool whole = p.w.cols % 8 == 0;
  with_group(p.x.rows, [&](auto group) {
    constexpr int kN = decltype(group)::value;
    const dim3 grid{ceil_div(p.w.rows, kRows), 1, ceil_div(p.x.rows, kN)};
    const auto kernel = whole && p.w.bits == 8   ? grid_kernel<kN, 8>
                        : whole && p.w.bits == 4 ? grid_kernel<kN, 4>
                                                 : grid_kernel<kN, 0>;
    launch_shared(kernel, grid, kThreads, kN * kChunk * sizeof(float), p);
  });
}

}  // namespace qn::cuda
