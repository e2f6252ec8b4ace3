// Attention by blocks of query rows: one block of scores per thread instead of a time x time matrix. The backward
// recomputes the probabilities from the stored log of the softmax denominator. Everything is computed in P; of
// activations in a storage type each thread keeps a copy of its head's rows in P.
#include <cmath>
#include <type_traits>
#include <vector>

#include "ops/cpu/attention_products.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"
#include "ops/cpu/pieces.h"

namespace qn::cpu {
namespace {

constexpr int64_t kQueryBlock = 64;

/// A head's columns of an interleaved tensor: element c of part p of row r is data[r * ld + p * part + c].
template <typename T>
struct Columns {
  T* data;
  int64_t ld, part;
};

/// One head of one sequence: its place in the batch, and its rows.
struct Item {
  int64_t b, h;
  int64_t first_query, queries, first_key, keys;
};

/// The item's columns of rows first_row .. of a tensor, part 0 of which begins at a column.
template <typename T>
Columns<T> columns_of(const Tensor& tensor, const AttentionArgs& args, const Item& item, int64_t first_row,
                      int64_t first_column) {
  const int64_t ld = tensor.cols();
  return {tensor.as<T>() + first_row * ld + first_column + item.h * args.head_dim, ld, args.heads * args.head_dim};
}
/// Queries, or of what has their shape.
template <typename T>
Columns<T> query_columns(const Tensor& tensor, const AttentionArgs& args, const Item& item) {
  return columns_of<T>(tensor, args, item, item.first_query, 0);
}
/// Keys (part 0) and values (part 1).
template <typename T>
Columns<T> key_columns(const Tensor& tensor, const AttentionArgs& args, const Item& item) {
  return columns_of<T>(tensor, args, item, item.first_key, tensor.cols() - 2 * args.heads * args.head_dim);
}

/// Rows and parts of columns.
struct Extent {
  int64_t rows, parts, dim;
};

template <typename To, typename From>
void convert(const Columns<To>& to, const Columns<From>& from, const Extent& extent) {
  for (int64_t r = 0; r < extent.rows; ++r)
    for (int64_t p = 0; p < extent.parts; ++p) {
      To* out = to.data + r * to.ld + p * to.part;
      const From* in = from.data + r * from.ld + p * from.part;
      for (int64_t c = 0; c < extent.dim; ++c) out[c] = static_cast<To>(in[c]);
    }
}

/// Where a head's result is computed in P: the columns themselves, or `buffer` when they are of a storage type.
template <typename P, typename T>
Columns<P> room_for(const Columns<T>& columns, std::vector<P>& buffer, const Extent& extent) {
  if constexpr (std::is_same_v<T, P>) return columns;
  buffer.resize(static_cast<size_t>(extent.rows * extent.parts * extent.dim));
  return {buffer.data(), extent.parts * extent.dim, extent.dim};
}

/// The columns in P.
template <typename P, typename T>
Columns<P> load(const Columns<T>& columns, std::vector<P>& buffer, const Extent& extent) {
  const Columns<P> loaded = room_for(columns, buffer, extent);
  if constexpr (!std::is_same_v<T, P>) convert(loaded, columns, extent);
  return loaded;
}

/// Writes back what was computed in room_for(columns).
template <typename P, typename T>
void store(const Columns<T>& columns, const Columns<P>& computed, const Extent& extent) {
  if constexpr (!std::is_same_v<T, P>) convert(columns, computed, extent);
}

/// What one thread needs; kept between calls.
template <typename P>
struct Scratch {
  std::vector<P> scores, dscores;
  std::vector<P> q, kv, out, dq, dkv, dout;  // copies in P
  GemmProducts<P> products;
  TiledProducts tiled;
};

/// Calls f(products) with what is fastest for P.
template <typename P, typename F>
void with_products(Scratch<P>& scratch, const F& f) {
  if constexpr (std::is_same_v<P, float>) {
    if (const GemmVariant* variant = gemm_variant(); variant != nullptr) {
      scratch.tiled.use(*variant);
      return f(scratch.tiled);
    }
  }
  f(scratch.products);
}

/// What is computed for an item.
template <typename P>
struct Head {
  Columns<P> q, kv;
  int64_t queries, keys, dim;
  int64_t row;  // (b * heads + h) * longest: index of the first query in lse and in the mask
  bool causal;
  P scale;
  int64_t mask_stride;  // keep-bit elements per query row
  uint32_t threshold;   // 0: no dropout
  P keep_scale;
  const RandomStream* stream;

  HeadShape<P> shape() const { return {{kv.data, kv.ld}, {kv.data + kv.part, kv.ld}, keys, dim, causal}; }
  /// Keys that any of `count` queries from `first` on sees.
  int64_t seen(int64_t first, int64_t count) const { return shape().seen(first, count); }
};

template <typename P>
Head<P> head_of(const Columns<P>& q, const Columns<P>& kv, const AttentionArgs& args, const Item& item,
                const RandomStream& stream) {
  return {.q = q,
          .kv = kv,
          .queries = item.queries,
          .keys = item.keys,
          .dim = args.head_dim,
          .row = (item.b * args.heads + item.h) * args.queries.longest,
          .causal = args.causal,
          .scale = static_cast<P>(1.0 / std::sqrt(static_cast<double>(args.head_dim))),
          .mask_stride = (args.keys.longest + 127) / 128 * 128,
          .threshold = args.dropout > 0.0 ? drop_threshold(args.dropout) : 0,
          .keep_scale = static_cast<P>(1.0 / (1.0 - args.dropout)),
          .stream = &stream};
}

/// Row r of the block sees keys 0 .. visible-1.
template <typename P>
int64_t visible(const Head<P>& head, int64_t query) {
  return head.seen(query, 1);
}

/// Calls f(c, factor) for keys c = 0, ..., n - 1 of a query, and for further ones below `room` where that keeps the
/// loop's length a constant: factor = `kept`, or 0 for keys that dropout drops.
template <typename P, typename F>
void for_each_key(const Head<P>& head, int64_t query, int64_t n, int64_t room, P kept, const F& f) {
  const int64_t first_group = (head.row + query) * (head.mask_stride / 128);
  uint32_t bits[4] = {~0U, ~0U, ~0U, ~0U};
  for (int64_t begin = 0; begin < n; begin += 32) {
    if (head.threshold != 0 && begin % 128 == 0) {
      uint64_t words[2];
      keep_bits_group(words, first_group + begin / 128, head.threshold, *head.stream);
      __builtin_memcpy(bits, words, sizeof bits);
    }
    const uint32_t word = bits[begin / 32 % 4];
    const auto visit = [&](int64_t j) { f(begin + j, ((word >> j) & 1U) != 0 ? kept : P{0}); };
    if (begin + 32 <= room) {  // of a known length the compiler makes a few masked instructions: a quarter of the time
#pragma omp simd
      for (int64_t j = 0; j < 32; ++j) visit(j);
    } else {
      for (int64_t j = 0; j < n - begin; ++j) visit(j);
    }
  }
}

/// Scores become dropped-out probabilities; hidden keys become 0. Writes the log denominators.
template <typename P>
void softmax_block(const Head<P>& head, const QueryBlock& block, P* scores, P* lse) {
  const int64_t first = block.first, keys = head.seen(first, block.count);
  for (int64_t r = 0; r < block.count; ++r) {
    P* s = scores + r * block.ld;
    const int64_t n = visible(head, first + r);
    P max = s[0];
#pragma omp simd reduction(max : max)
    for (int64_t c = 1; c < n; ++c) max = s[c] > max ? s[c] : max;
    P sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; ++c) {
      s[c] = exp_nonpositive(s[c] - max);
      sum += s[c];
    }
    for_each_key(head, first + r, n, keys, head.keep_scale / sum, [s](int64_t c, P factor) { s[c] *= factor; });
    std::fill(s + n, s + keys, P{0});
    lse[head.row + first + r] = max + std::log(sum);
  }
}

/// scores -> dropped-out probabilities (in place); dscores (holding dOut V^P) -> gradient of the scaled scores.
template <typename P>
void softmax_grad_block(const Head<P>& head, const QueryBlock& block, P* scores, P* dscores, const P* lse,
                        const P* delta) {
  const int64_t first = block.first, keys = head.seen(first, block.count);
  for (int64_t r = 0; r < block.count; ++r) {
    P *s = scores + r * block.ld, *d = dscores + r * block.ld;
    const int64_t n = visible(head, first + r);
    const P shift = lse[head.row + first + r], del = delta[r];
    for_each_key(head, first + r, n, keys, head.keep_scale, [=](int64_t c, P factor) {
      const P x = s[c] - shift;
      const P p = exp_nonpositive(x < P{0} ? x : P{0});
      d[c] = p * (factor * d[c] - del);
      s[c] = p * factor;
    });
    std::fill(s + n, s + keys, P{0});
    std::fill(d + n, d + keys, P{0});
  }
}

template <typename P, typename Products>
void head_forward(const Head<P>& head, const Columns<P>& out, P* lse, std::vector<P>& room, Products& products) {
  products.begin(head.shape(), false);
  const int64_t ld = products.row_of_keys(head.keys);
  P* scores = at_least(room, kQueryBlock * ld);
  for (int64_t first = 0; first < head.queries; first += kQueryBlock) {
    const QueryBlock block{first, std::min(kQueryBlock, head.queries - first), ld};
    products.times_transposed(scores, block, head.scale, head.q.data + first * head.q.ld, head.q.ld, HeadOperand::k);
    softmax_block(head, block, scores, lse);
    products.times(out.data + first * out.ld, out.ld, P{1}, scores, block, HeadOperand::v);
  }
}

/// delta[r] = <out, dout> of row r of a block
template <typename P>
void row_products(P* delta, const P* out, const P* dout, int64_t ld, int64_t count, int64_t dim) {
  for (int64_t r = 0; r < count; ++r) {
    const P *o = out + r * ld, *g = dout + r * ld;
    P sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < dim; ++c) sum += o[c] * g[c];
    delta[r] = sum;
  }
}

/// `dq` is laid out as the head's q, `dkv` as its k and v, `dout` as `out`.
template <typename P, typename Products>
void head_backward(const Head<P>& head, const Columns<P>& dq, const Columns<P>& dkv, const Columns<P>& out,
                   const Columns<P>& dout, const P* lse, Scratch<P>& scratch, Products& products) {
  products.begin(head.shape(), true);
  const int64_t ld = products.row_of_keys(head.keys);
  P *dk = dkv.data, *dv = dkv.data + dkv.part;
  P *scores = at_least(scratch.scores, kQueryBlock * ld), *dscores = at_least(scratch.dscores, kQueryBlock * ld);
  // From the last block down: the first one handled covers all keys, so it may overwrite dk and dv.
  bool add = false;
  for (int64_t first = (head.queries - 1) / kQueryBlock * kQueryBlock; first >= 0; first -= kQueryBlock, add = true) {
    const QueryBlock block{first, std::min(kQueryBlock, head.queries - first), ld};
    const P *grad = dout.data + first * out.ld, *q = head.q.data + first * head.q.ld;
    P delta[kQueryBlock];
    row_products(delta, out.data + first * out.ld, grad, out.ld, block.count, head.dim);
    products.times_transposed(scores, block, head.scale, q, head.q.ld, HeadOperand::k);
    products.times_transposed(dscores, block, P{1}, grad, out.ld, HeadOperand::v);
    softmax_grad_block(head, block, scores, dscores, lse, delta);
    products.transposed_times(dv, dkv.ld, add, P{1}, scores, block, grad, out.ld);
    products.times(dq.data + first * dq.ld, dq.ld, head.scale, dscores, block, HeadOperand::k);
    products.transposed_times(dk, dkv.ld, add, head.scale, dscores, block, q, head.q.ld);
  }
}

int64_t begin_of(const RowSequences& sequences, int64_t b) {
  return sequences.begins != nullptr ? sequences.begins[b] : b * sequences.longest;
}
int64_t length_of(const RowSequences& sequences, int64_t b) {
  return sequences.lengths != nullptr ? sequences.lengths[b] : sequences.longest;
}

/// Calls f(item) for items that no other thread of a parallel region has taken.
template <typename F>
void for_each_item(Pieces& items, const AttentionArgs& args, const F& f) {
  items.share([&](int64_t piece) {
    const int64_t b = piece / args.heads, queries = length_of(args.queries, b);
    if (queries == 0) return;
    f(Item{b, piece % args.heads, begin_of(args.queries, b), queries, begin_of(args.keys, b), length_of(args.keys, b)});
  });
}

}  // namespace

void attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  const RandomStream stream(args.key);
  dispatch_float(q.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    Pieces items(args.batch * args.heads);
#pragma omp parallel
    {
      static thread_local Scratch<P> scratch;
      for_each_item(items, args, [&](const Item& item) {
        const Extent queries{item.queries, 1, args.head_dim}, keys{item.keys, 2, args.head_dim};
        const auto head = head_of(load(query_columns<T>(q, args, item), scratch.q, queries),
                                  load(key_columns<T>(kv, args, item), scratch.kv, keys), args, item, stream);
        const auto result = query_columns<T>(out, args, item);
        const auto computed = room_for(result, scratch.out, queries);
        with_products(scratch,
                      [&](auto& products) { head_forward(head, computed, lse.as<P>(), scratch.scores, products); });
        store(result, computed, queries);
      });
    }
  });
}

void attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                    const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  const RandomStream stream(args.key);
  dispatch_float(q.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    Pieces items(args.batch * args.heads);
#pragma omp parallel
    {
      static thread_local Scratch<P> scratch;
      for_each_item(items, args, [&](const Item& item) {
        const Extent queries{item.queries, 1, args.head_dim}, keys{item.keys, 2, args.head_dim};
        const auto head = head_of(load(query_columns<T>(q, args, item), scratch.q, queries),
                                  load(key_columns<T>(kv, args, item), scratch.kv, keys), args, item, stream);
        const auto forward = load(query_columns<T>(out, args, item), scratch.out, queries);
        const auto grad = load(query_columns<T>(dout, args, item), scratch.dout, queries);
        const auto q_result = query_columns<T>(dq, args, item), kv_result = key_columns<T>(dkv, args, item);
        const auto q_computed = room_for(q_result, scratch.dq, queries);
        const auto kv_computed = room_for(kv_result, scratch.dkv, keys);
        with_products(scratch, [&](auto& products) {
          head_backward(head, q_computed, kv_computed, forward, grad, lse.as<P>(), scratch, products);
        });
        store(q_result, q_computed, queries);
        store(kv_result, kv_computed, keys);
      });
    }
  });
}

}  // namespace qn::cpu
