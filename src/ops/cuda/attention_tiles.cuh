// What the fused attention kernels are made of. A block keeps tiles of q, k, v or the gradient of the output in shared
// memory and every warp owns kM x 16 rows of the scores, which exist as fragments of accumulators only
// (ops/cuda/mma.cuh says which lane holds what): fragment[m][n][i] is at row 16 m + g + 8 (i / 2), column 8 n + 2 t + i
// % 2.
#pragma once

#include "ops/cuda/attention.h"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/packs.cuh"

namespace qn::cuda {

__device__ inline int warp_index() { return static_cast<int>(threadIdx.x / 32); }
__device__ inline int lane_index() { return static_cast<int>(threadIdx.x % 32); }
/// g and t of ops/cuda/mma.cuh.
__device__ inline int lane_row() { return lane_index() / 4; }
__device__ inline int lane_column() { return lane_index() % 4 * 2; }

/// Over the four lanes that share a row of fragments.
template <typename Combine>
__device__ float row_reduce(float value, Combine combine) {
  value = combine(value, __shfl_xor_sync(0xffffffffU, value, 1));
  return combine(value, __shfl_xor_sync(0xffffffffU, value, 2));
}

template <typename T>
__device__ uint32_t pack(float low, float high) {
  const PairOf<T> pair = round_pair<T>(low, high);
  uint32_t bits;
  static_assert(sizeof pair == sizeof bits);
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

template <typename T>
__device__ float2 unpack(uint32_t bits) {
  PairOf<T> pair;
  memcpy(static_cast<void*>(&pair), &bits, sizeof bits);
  if constexpr (std::is_same_v<T, bf16>)
    return __bfloat1622float2(pair);
  else
    return __half22float2(pair);
}

/// Where a tile [rows, kDim] in shared memory has its element (row, column + 8 chunk), relative to row `base`: a
/// multiple of 8, as `row` is small; `column` is a multiple of 16, `chunk` 0 or 1. The chunks of 8 elements of a row
/// change places with the row, so that the same chunk of 8 successive rows, which is what ldmatrix reads at a time,
/// lies in all 32 banks.
template <int kDim>
__device__ int tile_offset(int row, int column, int chunk) {
  static_assert(kDim % 32 == 0);
  constexpr int kPeriod = kDim % 64 == 0 ? 64 : 32;  // elements among which chunks change places
  const int turn = kPeriod == 64 ? row % 8 : row / 2 % 4;
  return row * kDim + column / kPeriod * kPeriod + (column % kPeriod ^ (chunk ^ turn) * 8);
}

/// Starts copying rows 0 .. kRows - 1 of a matrix into a tile, by the whole block; zeros from row `rows` on.
template <int kRows, int kDim, int kBlock, typename T>
__device__ void start_tile(T* tile, const T* from, int ld, int rows) {
  constexpr int kChunks = kDim / 8, kStep = kBlock / kChunks;  // rows that the block copies at a time
  static_assert(kBlock % kChunks == 0 && kStep % 8 == 0 && kRows % kStep == 0);
  const int thread = computed_here(static_cast<int>(threadIdx.x)), row = thread / kChunks, chunk = thread % kChunks;
  tile += tile_offset<kDim>(row, chunk / 2 * 16, chunk % 2);
  from += static_cast<int64_t>(row) * ld + chunk * 8;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep)
    copy_async<16>(tile + i * kDim, from + static_cast<int64_t>(i) * ld, row + i < rows);
}

/// Until all tiles that the block has started to copy are there. What was read before may be overwritten from then on.
__device__ inline void finish_tiles() {
  wait_for_copies();
  __syncthreads();
}

template <int kM, int kN>
__device__ void set_zero(float (&c)[kM][kN][4]) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) c[m][n][i] = 0.0f;
}

/// Loads [16, 16] elements of a tile from (row, column) on as an operand a [m, k] of a product or, transposed, as two
/// operands b [k, n], the first in registers 0 and 1.
template <int kDim, bool kTransposed = false, typename T>
__device__ void load_fragment(uint32_t (&fragment)[4], const T* tile, int row, int column, int lane) {
  load_matrices<kTransposed>(fragment, tile + row * kDim + tile_offset<kDim>(lane % 16, column, lane / 16));
}

/// The same as two operands b of a product with the tile's transpose: rows of the tile are n, columns k.
template <int kDim, typename T>
__device__ void load_rows_as_columns(uint32_t (&fragment)[4], const T* tile, int row, int column, int lane) {
  const int lane_row = lane % 8 + lane / 16 * 8;
  load_matrices<false>(fragment, tile + row * kDim + tile_offset<kDim>(lane_row, column, lane / 8 % 2));
}

/// c = a b^T: rows row .. row + 16 kM - 1 of tile a, rows column .. column + 8 kN - 1 of tile b.
template <int kDim, typename T, int kM, int kN>
__device__ void multiply_rows(float (&c)[kM][kN][4], const T* a, int row, const T* b, int column) {
  const int lane = computed_here(lane_index());
  set_zero(c);
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    uint32_t rows[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) load_fragment<kDim>(rows[m], a, row + 16 * m, k, lane);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t columns[4];
      load_rows_as_columns<kDim>(columns, b, column + 8 * n, k, lane);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply_16x8x16<T>(c[m][n], rows[m], columns[0], columns[1]);
        multiply_16x8x16<T>(c[m][n + 1], rows[m], columns[2], columns[3]);
      }
    }
  }
}

/// c += round(p) b: p [16 kM, 8 kN] rounded to T, b rows row .. row + 8 kN - 1 of a tile.
template <int kDim, typename T, int kM, int kN>
__device__ void add_product(float (&c)[kM][kDim / 8][4], const float (&p)[kM][kN][4], const T* b, int row) {
  const int lane = computed_here(lane_index());
#pragma unroll
  for (int k = 0; k < kN; k += 2) {
    uint32_t weights[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[m][i] = pack<T>(p[m][k + i / 2][i % 2 * 2], p[m][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t columns[4];
      load_fragment<kDim, true>(columns, b, row + 8 * k, 8 * n, lane);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply_16x8x16<T>(c[m][n], weights[m], columns[0], columns[1]);
        multiply_16x8x16<T>(c[m][n + 1], weights[m], columns[2], columns[3]);
      }
    }
  }
}

/// Writes c, with each row times its factor, to rows row .. of a matrix that has `rows` of them.
template <typename T, int kM, int kN>
__device__ void store_rows(T* to, int ld, int row, int rows, const float (&c)[kM][kN][4],
                           const float (&factor)[kM][2]) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + 16 * m + 8 * half + lane_row();
      if (r >= rows) continue;
#pragma unroll
      for (int n = 0; n < kN; ++n)
        *reinterpret_cast<PairOf<T>*>(to + static_cast<int64_t>(r) * ld + 8 * n + lane_column()) =
            round_pair<T>(c[m][n][2 * half] * factor[m][half], c[m][n][2 * half + 1] * factor[m][half]);
    }
}

template <typename T, int kM, int kN>
__device__ void store_rows(T* to, int ld, int row, int rows, const float (&c)[kM][kN][4], float factor) {
  float factors[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m) factors[m][0] = factors[m][1] = factor;
  store_rows(to, ld, row, rows, c, factors);
}

/// A head of a sequence. Heads are counted as b * heads + h.
struct Head {
  int index, batch, column;  ///< column: its first, in rows of all heads
};

__device__ inline Head computed_here(const Head& head) {
  return {computed_here(head.index), computed_here(head.batch), computed_here(head.column)};
}

/// What all fused kernels know of a call.
struct FusedShape {
  int queries, keys;                                                       ///< of the longest sequence
  const int32_t *query_begins, *query_lengths, *key_begins, *key_lengths;  ///< as of RowSequences
  int heads, width;                                                        ///< width = heads * head_dim
  int ld_q, ld_kv;                                                         ///< between rows of q and of k and v
  int first_head;                                                          ///< of the launch
  int ahead;         ///< keys behind its own that a query sees: none with a causal mask, else more than there are
  float scale;       ///< of scores
  float scale_log2;  ///< the same for powers of 2
  float keep_scale;  ///< 1 / (1 - dropout)
  const uint32_t* keep_bits;
  int mask_words;  ///< of a query's row

  __device__ Head head(int index) const { return {index, index / heads, index % heads * (width / heads)}; }
  /// Blocks are numbered head by head, with `tiles` of each.
  __device__ Head head_of_block(int tiles) const { return head(first_head + static_cast<int>(blockIdx.x) / tiles); }
  /// Of the head's sequence.
  __device__ int query_count(const Head& head) const {
    return query_lengths != nullptr ? query_lengths[head.batch] : queries;
  }
  __device__ int key_count(const Head& head) const { return key_lengths != nullptr ? key_lengths[head.batch] : keys; }
  /// Where a query of the head is in a matrix of queries with `ld` elements between rows.
  __device__ int64_t query_offset(const Head& head, int query, int ld) const {
    const int begin = query_begins != nullptr ? query_begins[head.batch] : head.batch * queries;
    return static_cast<int64_t>(begin + query) * ld + head.column;
  }
  /// The same for keys, in a matrix like that of k or v.
  __device__ int64_t key_offset(const Head& head, int key) const {
    const int begin = key_begins != nullptr ? key_begins[head.batch] : head.batch * keys;
    return static_cast<int64_t>(begin + key) * ld_kv + head.column;
  }
  /// Number of one of the head's queries among all heads', which there are longest ones of each.
  __device__ int64_t query_row(const Head& head, int query) const {
    return static_cast<int64_t>(head.index) * queries + query;
  }
  /// Keep bits of one of the head's queries.
  __device__ const uint32_t* mask_row(const Head& head, int query) const {
    return keep_bits + (static_cast<int64_t>(head.index - first_head) * queries + query) * mask_words;
  }
  /// Of `count` keys, those that a query sees.
  __device__ int visible(int query, int count) const { return min(query + 1 + ahead, count); }
};

/// Scores of keys that a query must not see become -infinity; rows are queries.
template <int kM, int kN>
__device__ void hide_keys(float (&scores)[kM][kN][4], int first_query, int first_key, int keys,
                          const FusedShape& shape) {
  const int column = first_key + lane_column();
  const int left = keys - column, own = first_query + lane_row() + 1 + shape.ahead - column;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (8 * n + i % 2 >= min(own + 16 * m + i / 2 * 8, left)) scores[m][n][i] = -INFINITY;
}

/// The keep bits of a lane's queries for keys from a multiple of 32 on: [fragment][row g or g + 8][32 keys]. Those of
/// queries behind the last one are anything.
template <int kM, int kWords>
struct KeepBits {
  uint32_t words[kM][2][kWords];

  __device__ void load(const FusedShape& shape, const Head& head, int first_query, int first_key) {
    const uint32_t* row = shape.mask_row(head, first_query + lane_row()) + first_key / 32;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int w = 0; w < kWords; ++w) words[m][half][w] = row[(16 * m + 8 * half) * shape.mask_words + w];
  }
  /// Whether fragment[m][n][i] is kept.
  __device__ bool keeps(int m, int n, int i) const {
    return (words[m][i / 2][n / 4] >> lane_column() >> (n % 4 * 8 + i % 2) & 1U) != 0;
  }
};

FusedShape fused_shape(const Tensor& q, const Tensor& kv, const AttentionArgs& args, const HeadRun& run);

/// Calls f(T{}, std::integral_constant<int, head_dim>{}).
template <typename F>
void dispatch_fused(DType dtype, int64_t head_dim, F&& f) {
  const auto with_type = [&](auto tag) {
    if (head_dim == 32) return f(tag, std::integral_constant<int, 32>{});
    if (head_dim == 64) return f(tag, std::integral_constant<int, 64>{});
    QN_ASSERT(head_dim == 128, "no fused attention for a head dimension of {}", head_dim);
    f(tag, std::integral_constant<int, 128>{});
  };
  QN_ASSERT(dtype == DType::bf16 || dtype == DType::f16, "no fused attention in {}", name_of(dtype));
  dtype == DType::bf16 ? with_type(bf16{}) : with_type(f16{});
}

}  // namespace qn::cuda
