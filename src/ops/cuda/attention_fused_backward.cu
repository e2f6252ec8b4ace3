// The gradient of attention in three kernels: sums of the output's gradient by query, the gradient of keys and values,
// the gradient of queries. The last two compute the scores anew (Dao, FlashAttention-2, 2023, section 3.1.2); taking
// turns instead of adding up the gradient of queries between blocks costs two products more of seven, and makes every
// sum's order a fixed one.
#include "ops/cuda/attention_tiles.cuh"
#include "ops/cuda/reduce.cuh"

namespace qn::cuda {
namespace {

/// What is known of a query beside its row: the log of its softmax denominator to base 2, and the sum over its output
/// times the output's gradient.
using Stats = float2;

template <typename T>
struct BackwardArgs {
  FusedShape shape;
  const T *q, *k, *dout;  // values are `width` columns behind keys, and their gradient behind that of keys
  const Stats* stats;
  T *dq, *dk;
};

/// From the score of a pair and the gradient of its dropped-out probability to that probability, without its constant
/// factor keep_scale, and the gradient of the scaled score.
template <bool kDropout>
__device__ void softmax_grad(float& score, float& grad, const Stats& stats, bool keep, const FusedShape& shape) {
  const float p = fast_exp2(score * shape.scale_log2 - stats.x);
  const float factor = !kDropout ? 1.0f : keep ? shape.keep_scale : 0.0f;
  score = kDropout && !keep ? 0.0f : p;
  grad = p * (factor * grad - stats.y);
}

// Four lanes per query, 16 bytes each at a time.
template <typename T, int kDim>
__global__ void stats_kernel(Stats* stats, const T* out, const T* dout, const float* lse, FusedShape shape,
                             int64_t rows) {
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 4); first < rows;
       first += static_cast<int64_t>(gridDim.x) * (blockDim.x / 4)) {
    const int64_t row = first + threadIdx.x / 4;
    float sum = 0.0f;
    if (row < rows) {
      const Head head = shape.head(static_cast<int>(row / shape.queries));
      const int query = static_cast<int>(row % shape.queries), dim = query < shape.query_count(head) ? kDim : 0;
      const int64_t offset = shape.query_offset(head, query, shape.width);
#pragma unroll
      for (int c = static_cast<int>(threadIdx.x % 4) * 8; c < dim; c += 32) {
        const auto x = *reinterpret_cast<const uint4*>(out + offset + c);
        const auto y = *reinterpret_cast<const uint4*>(dout + offset + c);
        const uint32_t a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 u = unpack<T>(a[i]), w = unpack<T>(b[i]);
          sum += u.x * w.x + u.y * w.y;
        }
      }
    }
    sum = row_reduce(sum, Sum{});
    if (row < rows && threadIdx.x % 4 == 0) stats[row] = {lse[row] * kLog2OfE, sum};
  }
}

/// Sizes of the kernel for keys and values. A warp keeps the gradients of both, so its rows must be few where these are
/// long.
template <int kDimension>
struct KeySide {
  static constexpr int kDim = kDimension, kM = kDim <= 64 ? 2 : 1;
  static constexpr int kKeys = 128, kQueries = 64;
  static constexpr int kSlice = 64 / kM;                                         // queries whose scores exist at a time
  static constexpr int kBlock = kKeys / (16 * kM) * 32, kBlocks = 256 / kBlock;  // threads; blocks at a time

  /// What a block reads of a tile of queries. Keep bits are those of the block's keys.
  template <typename T>
  struct Stage {
    T q[kQueries * kDim], dout[kQueries * kDim];
    Stats stats[kQueries];
    uint4 keep_bits[kQueries];
  };
  template <typename T>
  struct Shared {
    T k[kKeys * kDim], v[kKeys * kDim];
    Stage<T> stages[2];
  };
  static_assert(kKeys == 128, "the keep bits of a query and a block are one group");
};

/// Starts copying everything of queries first_query .. into a stage.
template <typename Side, bool kDropout, typename T>
__device__ void start_stage(typename Side::template Stage<T>& stage, const BackwardArgs<T>& args, Head head,
                            int first_query, int first_key) {
  head = computed_here(head);
  const FusedShape& shape = args.shape;
  const int queries = shape.query_count(head) - first_query;
  start_tile<Side::kQueries, Side::kDim, Side::kBlock>(
      stage.q, args.q + shape.query_offset(head, first_query, shape.ld_q), shape.ld_q, queries);
  start_tile<Side::kQueries, Side::kDim, Side::kBlock>(
      stage.dout, args.dout + shape.query_offset(head, first_query, shape.width), shape.width, queries);
  const int i = static_cast<int>(threadIdx.x);
  if (i >= Side::kQueries) return;
  copy_async<8>(stage.stats + i, args.stats + shape.query_row(head, first_query + i), i < queries);
  if (kDropout)
    copy_async<16>(stage.keep_bits + i, shape.mask_row(head, first_query + i) + first_key / 32, i < queries);
}

/// Scores of queries that must not see a key become -infinity; the first query sees keys up to last_key.
template <int kM, int kN>
__device__ void hide_queries(float (&scores)[kM][kN][4], int first_key, int last_key) {
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (last_key + 8 * n + lane_column() + i % 2 < first_key + 16 * m + i / 2 * 8 + lane_row())
          scores[m][n][i] = -INFINITY;
}

/// Scores and gradients of dropped-out probabilities, rows being keys first_row .. of the block and columns queries
/// `slice` .. of the stage, become what softmax_grad() says.
template <typename Side, bool kDropout, typename T>
__device__ void grad_of_slice(float (&scores)[Side::kM][Side::kSlice / 8][4],
                              float (&grads)[Side::kM][Side::kSlice / 8][4],
                              const typename Side::template Stage<T>& stage, int slice, int first_row,
                              const FusedShape& shape) {
  const int lane_query = computed_here(slice + lane_column()), lane_key = computed_here(first_row + lane_row());
#pragma unroll
  for (int n = 0; n < Side::kSlice / 8; ++n)
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int query = lane_query + 8 * n + column;
      const Stats stats = stage.stats[query];
      uint32_t keep = 0;  // from the bit of the lane's first key on
      if (kDropout) keep = reinterpret_cast<const uint32_t*>(stage.keep_bits + query)[lane_key / 32] >> lane_key % 32;
#pragma unroll
      for (int m = 0; m < Side::kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          softmax_grad<kDropout>(scores[m][n][2 * half + column], grads[m][n][2 * half + column], stats,
                                 (keep >> (16 * m + 8 * half) & 1U) != 0, shape);
    }
}

template <typename T, int kDim, bool kDropout>
__global__ void __launch_bounds__(KeySide<kDim>::kBlock, KeySide<kDim>::kBlocks)
    key_grad_kernel(const BackwardArgs<T> args) {
  using Side = KeySide<kDim>;
  using Shared = typename Side::template Shared<T>;
  const FusedShape& shape = args.shape;
  const int tiles = (shape.keys + Side::kKeys - 1) / Side::kKeys;
  const Head head = shape.head_of_block(tiles);
  const int first_key = static_cast<int>(blockIdx.x) % tiles * Side::kKeys, width = shape.width, ld = shape.ld_kv;
  const int keys = shape.key_count(head), queries = shape.query_count(head);
  if (first_key >= keys || queries == 0) return;
  const T* k = args.k + shape.key_offset(head, first_key);
  auto& shared = *dynamic_shared<Shared>();
  start_tile<Side::kKeys, kDim, Side::kBlock>(shared.k, k, ld, keys - first_key);
  start_tile<Side::kKeys, kDim, Side::kBlock>(shared.v, k + width, ld, keys - first_key);
  const int begin = max(first_key - shape.ahead, 0);  // of the queries that see any of the keys
  start_stage<Side, kDropout>(shared.stages[0], args, head, begin, first_key);

  const int row = warp_index() * 16 * Side::kM, warp_key = first_key + row;
  float dk[Side::kM][kDim / 8][4], dv[Side::kM][kDim / 8][4];
  set_zero(dk);
  set_zero(dv);
  for (int first_query = begin, current = 0; first_query < queries; first_query += Side::kQueries, current ^= 1) {
    const auto& stage = shared.stages[current];
    finish_tiles();
    if (first_query + Side::kQueries < queries)
      start_stage<Side, kDropout>(shared.stages[current ^ 1], args, head, first_query + Side::kQueries, first_key);
#pragma unroll 1
    for (int slice = 0; slice < Side::kQueries; slice += Side::kSlice) {
      const int last_key = first_query + slice + shape.ahead;  // that the first query of the slice sees
      if (last_key + Side::kSlice <= warp_key) continue;       // nor does the last one see any of the warp's
      float scores[Side::kM][Side::kSlice / 8][4], grads[Side::kM][Side::kSlice / 8][4];
      multiply_rows<kDim>(scores, shared.k, row, stage.q, slice);
      multiply_rows<kDim>(grads, shared.v, row, stage.dout, slice);
      if (last_key < warp_key + 16 * Side::kM - 1) hide_queries(scores, warp_key, last_key);
      grad_of_slice<Side, kDropout>(scores, grads, stage, slice, row, shape);
      add_product<kDim>(dv, scores, stage.dout, slice);
      add_product<kDim>(dk, grads, stage.q, slice);
    }
  }
  T* result = args.dk + shape.key_offset(head, 0);
  store_rows(result, ld, warp_key, keys, dk, shape.scale);
  store_rows(result + width, ld, warp_key, keys, dv, kDropout ? shape.keep_scale : 1.0f);
}

/// Sizes of the kernel for queries.
template <int kDimension>
struct QuerySide {
  static constexpr int kDim = kDimension, kM = 2;
  static constexpr int kQueries = 128, kKeys = kDim <= 64 ? 64 : 32;
  static constexpr int kSlice = 32;  // keys whose scores exist at a time
  static constexpr int kBlock = kQueries / (16 * kM) * 32;

  template <typename T>
  struct Stage {
    T k[kKeys * kDim], v[kKeys * kDim];
  };
  template <typename T>
  struct Shared {
    T q[kQueries * kDim], dout[kQueries * kDim];
    Stats stats[kQueries];
    Stage<T> stages[2];
  };
};

/// As grad_of_slice(), rows being queries, with `stats` of the first, and columns 32 keys.
template <bool kDropout, int kM>
__device__ void grad_of_keys(float (&scores)[kM][4][4], float (&grads)[kM][4][4], const Stats* stats,
                             const KeepBits<kM, 1>& keep, const FusedShape& shape) {
  const int lane_query = computed_here(lane_row());
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Stats row = stats[16 * m + 8 * half + lane_query];
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i)
          softmax_grad<kDropout>(scores[m][n][i], grads[m][n][i], row, kDropout && keep.keeps(m, n, i), shape);
    }
}

template <typename T, int kDim, bool kDropout>
__global__ void __launch_bounds__(QuerySide<kDim>::kBlock, 2) query_grad_kernel(const BackwardArgs<T> args) {
  using Side = QuerySide<kDim>;
  using Shared = typename Side::template Shared<T>;
  constexpr int kM = Side::kM;
  const FusedShape& shape = args.shape;
  const int tiles = (shape.queries + Side::kQueries - 1) / Side::kQueries;
  const Head head = shape.head_of_block(tiles);
  const int first_query = (tiles - 1 - static_cast<int>(blockIdx.x) % tiles) * Side::kQueries;
  const int width = shape.width, queries = shape.query_count(head);
  if (first_query >= queries) return;
  auto& shared = *dynamic_shared<Shared>();
  start_tile<Side::kQueries, kDim, Side::kBlock>(shared.q, args.q + shape.query_offset(head, first_query, shape.ld_q),
                                                 shape.ld_q, queries - first_query);
  start_tile<Side::kQueries, kDim, Side::kBlock>(shared.dout, args.dout + shape.query_offset(head, first_query, width),
                                                 width, queries - first_query);
  for (int i = static_cast<int>(threadIdx.x); i < Side::kQueries; i += Side::kBlock)
    copy_async<8>(shared.stats + i, args.stats + shape.query_row(head, first_query + i), first_query + i < queries);
  const int end = shape.visible(first_query + Side::kQueries - 1, shape.key_count(head));  // of what the block sees
  const auto start_stage = [&](auto& stage, int first_key) {
    const T* k = args.k + shape.key_offset(computed_here(head), first_key);
    start_tile<Side::kKeys, kDim, Side::kBlock>(stage.k, k, shape.ld_kv, end - first_key);
    start_tile<Side::kKeys, kDim, Side::kBlock>(stage.v, k + width, shape.ld_kv, end - first_key);
  };
  start_stage(shared.stages[0], 0);

  float dq[kM][kDim / 8][4];
  set_zero(dq);
  const auto stage_of = [&](int first_key) -> auto& { return shared.stages[first_key / Side::kKeys % 2]; };
  for (int first_key = 0; first_key < end; first_key += Side::kKeys) {
    const auto& stage = stage_of(first_key);
    finish_tiles();
    if (first_key + Side::kKeys < end) start_stage(stage_of(first_key + Side::kKeys), first_key + Side::kKeys);
#pragma unroll 1
    for (int slice = 0; slice < Side::kKeys; slice += Side::kSlice) {
      const int slice_key = first_key + slice;
      // Beside keep bits there is no register left for it.
      const int warp = kDropout ? computed_here(warp_index()) : warp_index();
      const int row = warp * 16 * kM, warp_query = first_query + row;
      if (slice_key >= min(warp_query + 16 * kM + shape.ahead, end)) continue;
      float scores[kM][4][4], grads[kM][4][4];
      KeepBits<kM, 1> keep;
      multiply_rows<kDim>(scores, shared.q, row, stage.k, slice);
      if (kDropout) keep.load(shape, computed_here(head), warp_query, slice_key);
      multiply_rows<kDim>(grads, shared.dout, row, stage.v, slice);
      if (slice_key + Side::kSlice > shape.visible(warp_query, end))
        hide_keys(scores, warp_query, slice_key, end, shape);
      grad_of_keys<kDropout>(scores, grads, shared.stats + row, keep, shape);
      add_product<kDim>(dq, grads, stage.k, slice);
    }
  }
  store_rows(args.dq + shape.query_offset(head, 0, shape.ld_q), shape.ld_q, first_query + warp_index() * 16 * kM,
             shape.query_count(computed_here(head)), dq, shape.scale);
}

template <typename T, int kDim, bool kDropout>
void launch_grads(const BackwardArgs<T>& args, const HeadRun& run) {
  const auto grid = [&](int rows, int tile) { return dim3(static_cast<unsigned>(run.count) * ceil_div(rows, tile)); };
  launch_shared(key_grad_kernel<T, kDim, kDropout>, grid(args.shape.keys, KeySide<kDim>::kKeys), KeySide<kDim>::kBlock,
                sizeof(typename KeySide<kDim>::template Shared<T>), args);
  launch_shared(query_grad_kernel<T, kDim, kDropout>, grid(args.shape.queries, QuerySide<kDim>::kQueries),
                QuerySide<kDim>::kBlock, sizeof(typename QuerySide<kDim>::template Shared<T>), args);
}

}  // namespace

size_t fused_attention_shared_bytes(int64_t head_dim) {
  size_t bytes = 0;
  dispatch_fused(DType::bf16, head_dim, [&](auto tag, auto dim) {
    using T = decltype(tag);
    constexpr int kDim = decltype(dim)::value;
    bytes = std::max(sizeof(typename KeySide<kDim>::template Shared<T>),
                     sizeof(typename QuerySide<kDim>::template Shared<T>));
  });
  return bytes;  // the forward needs half of it
}

void fused_attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                          const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  const int64_t rows = args.batch * args.heads * args.queries.longest, keys = key_column(kv, args);
  auto* stats = attention_scratch<Stats>(rows);
  dispatch_fused(q.dtype, args.head_dim, [&](auto tag, auto dim) {
    using T = decltype(tag);
    constexpr int kDim = decltype(dim)::value;
    launch(stats_kernel<T, kDim>, flat_grid(4 * rows), kThreads, stats, data_of<T>(out), data_of<T>(dout),
           data_of<float>(lse), fused_shape(q, kv, args, {}), rows);
    for_each_head_run(args, Pass::backward, [&](const HeadRun& run) {
      const BackwardArgs<T> backward{
          fused_shape(q, kv, args, run), data_of<T>(q), data_of<T>(kv) + keys, data_of<T>(dout), stats, data_of<T>(dq),
          data_of<T>(dkv) + keys};
      (run.keep_bits != nullptr ? launch_grads<T, kDim, true> : launch_grads<T, kDim, false>)(backward, run);
    });
  });
}

}  // namespace qn::cuda
