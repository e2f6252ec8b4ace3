// Attention in one pass over the keys: a block takes 128 queries of a head, keeps the largest score, the sum of
// exponentials and the weighted sum of values of each, and corrects them when a larger score comes (Dao,
// FlashAttention-2, 2023, algorithm 1).
#include <cmath>

#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/reduce.cuh"

namespace qn::cuda {
namespace {

constexpr int kQueries = 128;  // of a tile
constexpr int kBlock = 128;    // threads
constexpr int kM = 2;          // fragments of 16 rows of a warp: each operand that is loaded is used twice
constexpr int kWarpQueries = 16 * kM;
static_assert(kBlock / 32 * kWarpQueries == kQueries);

/// Of a tile: the fewer, the more room registers have for the weighted sums.
template <int kDim>
constexpr int kKeysOf = kDim <= 64 ? 64 : 32;

template <int kDim>
constexpr size_t forward_shared_bytes() {
  return (kQueries + 2 * kKeysOf<kDim>)*kDim * 2;
}

template <typename T>
struct ForwardArgs {
  FusedShape shape;
  const T *q, *k;  // values are `width` columns behind keys
  T* out;
  float* lse;
};

/// The scores of the warp's queries for a tile of keys.
template <int kKeys>
using Scores = float[kM][kKeys / 8][4];

/// Softmax so far of the queries of a lane: [fragment][row g or g + 8].
struct Softmax {
  float max[kM][2], sum[kM][2];
};

/// Scores become exponentials against the largest so far; `out` is corrected where that has changed.
template <int kKeys, int kN>
__device__ void update(Softmax& softmax, Scores<kKeys>& scores, float (&out)[kM][kN][4], float scale_log2) {
  float correction[kM][2];
  bool changed = false;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float max = softmax.max[m][half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) max = fmaxf(max, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
      max = row_reduce(max, Max{});
      const float shift = max * scale_log2;
      correction[m][half] = fast_exp2(softmax.max[m][half] * scale_log2 - shift);
      changed = changed || max != softmax.max[m][half];
      float sum = softmax.sum[m][half] * correction[m][half];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[m][n][i] = fast_exp2(scores[m][n][i] * scale_log2 - shift);
          sum += scores[m][n][i];
        }
      softmax.max[m][half] = max;
      softmax.sum[m][half] = sum;
    }
  if (__ballot_sync(0xffffffffU, changed) == 0) return;  // most tiles bring no larger score
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[m][n][i] *= correction[m][i / 2];
}

/// Dropped exponentials become 0.
template <int kKeys>
__device__ void drop(Scores<kKeys>& scores, const KeepBits<kM, kKeys / 32>& keep) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (!keep.keeps(m, n, i)) scores[m][n][i] = 0.0f;
}

template <typename T, int kDim, bool kDropout>
__global__ void __launch_bounds__(kBlock, 2) forward_kernel(const ForwardArgs<T> args) {
  constexpr int kKeys = kKeysOf<kDim>;
  const FusedShape& shape = args.shape;
  const int width = shape.width, ld = shape.ld_kv, tiles = (shape.queries + kQueries - 1) / kQueries;
  const Head head = shape.head_of_block(tiles);
  const int queries = shape.query_count(head);
  // With a causal mask the last queries of a head take longest: they begin first.
  const int first_query = (tiles - 1 - static_cast<int>(blockIdx.x) % tiles) * kQueries;
  if (first_query >= queries) return;
  const int end = shape.visible(first_query + kQueries - 1, shape.key_count(head));  // of the keys that the block sees
  T *q_tile = dynamic_shared<T>(), *k_tile = q_tile + kQueries * kDim, *v_tile = k_tile + kKeys * kDim;
  start_tile<kQueries, kDim, kBlock>(q_tile, args.q + shape.query_offset(head, first_query, shape.ld_q), shape.ld_q,
                                     queries - first_query);
  const T* k = args.k + shape.key_offset(head, 0);  // of the next tile
  start_tile<kKeys, kDim, kBlock>(k_tile, k, ld, end);

  const int row = warp_index() * kWarpQueries, warp_query = first_query + row;
  float out[kM][kDim / 8][4];
  set_zero(out);
  Softmax softmax;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    softmax.max[m][0] = softmax.max[m][1] = -INFINITY;
    softmax.sum[m][0] = softmax.sum[m][1] = 0.0f;
  }
  for (int first_key = 0; first_key < end; first_key += kKeys) {
    const bool visible = first_key < warp_query + kWarpQueries + shape.ahead;  // to any query of the warp
    const bool all_visible = first_key + kKeys <= shape.visible(warp_query, end);
    Scores<kKeys> scores;
    finish_tiles();
    start_tile<kKeys, kDim, kBlock>(v_tile, k + width, ld, end - first_key);
    if (visible) multiply_rows<kDim>(scores, q_tile, row, k_tile, 0);
    finish_tiles();
    k += static_cast<int64_t>(kKeys) * ld;
    if (first_key + kKeys < end) start_tile<kKeys, kDim, kBlock>(k_tile, k, ld, end - first_key - kKeys);
    if (!visible) continue;
    KeepBits<kM, kKeys / 32> keep;
    if (kDropout) keep.load(shape, head, warp_query, first_key);
    if (!all_visible) hide_keys(scores, warp_query, first_key, end, shape);
    update<kKeys>(softmax, scores, out, shape.scale_log2);
    if (kDropout) drop<kKeys>(scores, keep);
    add_product<kDim>(out, scores, v_tile, 0);
  }

  float factor[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_reduce(softmax.sum[m][half], Sum{});
      const int query = warp_query + 16 * m + 8 * half + lane_row();
      factor[m][half] = (kDropout ? shape.keep_scale : 1.0f) / sum;
      if (lane_column() == 0 && query < queries)
        args.lse[shape.query_row(head, query)] = softmax.max[m][half] * shape.scale + logf(sum);
    }
  store_rows(args.out + shape.query_offset(head, 0, width), width, warp_query, queries, out, factor);
}

}  // namespace

void fused_attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv,
                     const AttentionArgs& args) {
  dispatch_fused(q.dtype, args.head_dim, [&](auto tag, auto dim) {
    using T = decltype(tag);
    constexpr int kDim = decltype(dim)::value;
    for_each_head_run(args, Pass::forward, [&](const HeadRun& run) {
      const ForwardArgs<T> forward{fused_shape(q, kv, args, run), data_of<T>(q), data_of<T>(kv) + key_column(kv, args),
                                   data_of<T>(out), data_of<float>(lse)};
      const dim3 grid(static_cast<unsigned>(run.count) * ceil_div(args.queries.longest, kQueries));
      const auto kernel = run.keep_bits != nullptr ? forward_kernel<T, kDim, true> : forward_kernel<T, kDim, false>;
      launch_shared(kernel, grid, kBlock, forward_shared_bytes<kDim>(), forward);
    });
  });
}

FusedShape fused_shape(const Tensor& q, const Tensor& kv, const AttentionArgs& args, const HeadRun& run) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(args.head_dim));
  return {.queries = static_cast<int>(args.queries.longest),
          .keys = static_cast<int>(args.keys.longest),
          .query_begins = args.queries.begins,
          .query_lengths = args.queries.lengths,
          .key_begins = args.keys.begins,
          .key_lengths = args.keys.lengths,
          .heads = static_cast<int>(args.heads),
          .width = static_cast<int>(args.heads * args.head_dim),
          .ld_q = static_cast<int>(q.cols()),
          .ld_kv = static_cast<int>(kv.cols()),
          .first_head = static_cast<int>(run.first),
          .ahead = static_cast<int>(args.causal ? 0 : args.keys.longest),
          .scale = static_cast<float>(scale),
          .scale_log2 = static_cast<float>(scale * kLog2OfE),
          .keep_scale = static_cast<float>(1.0 / (1.0 - args.dropout)),
          .keep_bits = run.keep_bits,
          .mask_words = static_cast<int>(4 * mask_groups(args))};
}

}  // namespace qn::cuda
