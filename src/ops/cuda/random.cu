// Keep bits, and the noise made of them.
#include "core/philox.h"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/keep_bits.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

struct StreamWords {
  uint32_t key0, key1, update, micro_batch;
  const uint32_t* recorded_pass;  // see Context
};

/// Moves bit i of the low half to bit 2 i.
__device__ uint32_t spread(uint32_t x) {
  x &= 0xffffU;
  x = (x | (x << 8)) & 0x00ff00ffU;
  x = (x | (x << 4)) & 0x0f0f0f0fU;
  x = (x | (x << 2)) & 0x33333333U;
  return (x | (x << 1)) & 0x55555555U;
}

/// A warp draws groups `group` and group + 1 of the stream: lane l computes block l % 16 of group l / 16, and lane j <
/// 8 writes 32-bit word j of the two together. With `count` 1 only the first is written.
__device__ void draw_two_groups(uint32_t* words, int64_t group, int64_t count, uint32_t threshold,
                                const StreamWords& stream) {
  const unsigned lane = threadIdx.x % 32;
  const auto block = static_cast<uint64_t>(group + lane / 16) * 16 + lane % 16;
  uint32_t c[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream.update, stream.micro_batch};
  philox_block(c, stream.key0, stream.key1);
  uint32_t low = 0, high = 0;  // of the word that lane writes, of both groups
  for (unsigned w = 0; w < 4; ++w) {
    const uint32_t lows = __ballot_sync(0xffffffffU, (c[w] << 16) >= threshold << 16);
    const uint32_t highs = __ballot_sync(0xffffffffU, c[w] >= threshold << 16);
    if (lane % 4 == w) {
      low = lows;
      high = highs;
    }
  }
  const unsigned shift = lane / 4 % 2 * 16;
  if (lane < 4 * count && lane < 8) words[lane] = spread(low >> shift) | spread(high >> shift) << 1;
}

/// With the numbers of the pass that is computed, not of the one that was recorded.
__device__ StreamWords current_stream(StreamWords stream) {
  if (stream.recorded_pass != nullptr) {
    stream.update = stream.recorded_pass[0];
    stream.micro_batch = stream.recorded_pass[1];
  }
  return stream;
}

__global__ void keep_bits_kernel(uint32_t* words, int64_t groups, uint32_t threshold, StreamWords recorded) {
  const StreamWords stream = current_stream(recorded);
  const int64_t warps = thread_count() / 32;
  for (int64_t group = thread_index() / 32 * 2; group < groups; group += 2 * warps)
    draw_two_groups(words + group * 4, group, groups - group, threshold, stream);
}

/// Rows of attention's keep bits: row (b * heads + h) * longest query + query.
struct AttentionBits {
  int64_t first, count, heads;
  RowSequences queries, keys;
  bool causal;
};

// A warp per query.
__global__ void attention_bits_kernel(uint32_t* words, AttentionBits rows, uint32_t threshold, StreamWords recorded) {
  const StreamWords stream = current_stream(recorded);
  const int64_t row = thread_index() / 32;
  if (row >= rows.count) return;
  const int64_t head = (rows.first + row) / rows.queries.longest,
                query = rows.first + row - head * rows.queries.longest;
  int64_t keys = rows.keys.longest;
  if (rows.keys.lengths != nullptr) {
    const int64_t b = head / rows.heads;
    if (query >= rows.queries.lengths[b]) return;
    keys = rows.keys.lengths[b];
  }
  const int64_t all = (rows.keys.longest + 127) / 128;
  const int64_t visible = rows.causal ? query / 128 + 1 : (keys + 127) / 128;
  for (int64_t group = 0; group < visible; group += 2)
    draw_two_groups(words + (row * all + group) * 4, (rows.first + row) * all + group, visible - group, threshold,
                    stream);
}

StreamWords words_of(const RandomKey& key) {
  const RandomStream stream(key);
  return {stream.key()[0], stream.key()[1], stream.update(), stream.micro_batch(), Context::current().recorded_pass()};
}

template <typename Y, typename P>
__global__ void block_noise_kernel(Y* y, const P* w, const uint32_t* bits, int64_t block, P scale, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const int64_t b = i / block;
    const P factor = ((bits[b / 32] >> (b % 32)) & 1U) != 0 ? scale : P{0};
    y[i] = static_cast<Y>(factor * w[i]);
  }
}

/// Without bits every block is replaced.
template <typename Y, typename P>
__global__ void replace_blocks_kernel(Y* y, const P* w, const P* values, const uint16_t* codes, const uint32_t* bits,
                                      bool by_cluster, bool one_value, int64_t block, P scale, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const int64_t b = i / block;
    const int64_t code = codes != nullptr ? codes[b] : 0, bit = by_cluster ? code : b;
    const bool keep = bits != nullptr && ((bits[bit / 32] >> (bit % 32)) & 1U) != 0;
    y[i] = static_cast<Y>(keep ? scale * w[i] : values[(one_value ? 0 : code) * block + i % block]);
  }
}

}  // namespace

void draw_attention_bits(uint64_t* bits, int64_t first, int64_t count, uint32_t threshold, const AttentionArgs& args) {
  const int64_t longest = args.queries.longest;
  const AttentionBits rows{first * longest, count * longest, args.heads, args.queries, args.keys, args.causal};
  launch(attention_bits_kernel, dim3(ceil_div(rows.count * 32, kThreads)), kThreads, reinterpret_cast<uint32_t*>(bits),
         rows, threshold, words_of(args.key));
}

void keep_bits(uint64_t* bits, int64_t n, double p, const RandomKey& key) {
  const int64_t groups = keep_words(n) / 2;
  launch(keep_bits_kernel, flat_grid((groups + 1) / 2 * 32), kThreads, reinterpret_cast<uint32_t*>(bits), groups,
         drop_threshold(p), words_of(key));
}

void block_noise(const Tensor& y, const Tensor& w, int64_t block, double p, const RandomKey& key) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t blocks = w.elements() / block;
  auto* bits =
      static_cast<uint64_t*>(context.scratch().allocate(static_cast<size_t>(keep_words(blocks)) * sizeof(uint64_t)));
  keep_bits(bits, blocks, p, key);
  dispatch_pair(y.dtype, w.dtype, [&](auto tag_y, auto tag_w) {
    using Y = decltype(tag_y);
    using P = decltype(tag_w);
    if constexpr (std::is_same_v<P, ParameterOf<Y>>)
      launch(block_noise_kernel<Y, P>, flat_grid(blocks * block), kThreads, data_of<Y>(y), data_of<P>(w),
             reinterpret_cast<const uint32_t*>(bits), block, static_cast<P>(1.0 / (1.0 - p)), blocks * block);
    else
      QN_ASSERT(false, "noise is drawn on masters, not on {}", name_of(w.dtype));
  });
}

void replace_blocks(const Tensor& y, const Tensor& w, const Tensor& values, const uint16_t* codes, int64_t clusters,
                    double p, double scale, const RandomKey& key) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t block = values.cols(), blocks = w.elements() / block, draws = clusters > 0 ? clusters : blocks;
  uint64_t* bits = nullptr;
  if (p < 1.0) {
    bits =
        static_cast<uint64_t*>(context.scratch().allocate(static_cast<size_t>(keep_words(draws)) * sizeof(uint64_t)));
    keep_bits(bits, draws, p, key);
  }
  dispatch_pair(y.dtype, w.dtype, [&](auto tag_y, auto tag_w) {
    using Y = decltype(tag_y);
    using P = decltype(tag_w);
    if constexpr (std::is_same_v<P, ParameterOf<Y>>)
      launch(replace_blocks_kernel<Y, P>, flat_grid(blocks * block), kThreads, data_of<Y>(y), data_of<P>(w),
             data_of<P>(values), codes, reinterpret_cast<const uint32_t*>(bits), clusters > 0, values.rows() == 1,
             block, static_cast<P>(scale), blocks * block);
    else
      QN_ASSERT(false, "noise is drawn on masters, not on {}", name_of(w.dtype));
  });
}

}  // namespace qn::cuda
