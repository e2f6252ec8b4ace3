// Attention by blocks of query rows: one block of scores per thread instead of a time x time matrix. The backward
// recomputes the probabilities from the stored log of the softmax denominator. Everything is computed in P; of
// activations in a storage type each thread keeps a copy of its head's rows in P.
#include <cmath>
#include <type_traits>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"

namespace qn::cpu {
namespace {

constexpr int64_t kQueryBlock = 64;

/// A head's columns of an interleaved tensor: element c of part p (q, k or v) of row r is data[r * ld + p * part + c].
template <typename T>
struct Columns {
  T* data;
  int64_t ld, part;
};

/// Those of head `index` (b * heads + h) in a tensor of `parts` interleaved parts.
template <typename T>
Columns<T> columns_of(const Tensor& tensor, const AttentionArgs& args, int64_t index, int64_t parts) {
  const int64_t width = args.heads * args.head_dim, b = index / args.heads, h = index % args.heads;
  return {tensor.as<T>() + b * args.time * parts * width + h * args.head_dim, parts * width, width};
}

template <typename To, typename From>
void convert(const Columns<To>& to, const Columns<From>& from, const AttentionArgs& args, int64_t parts) {
  for (int64_t r = 0; r < args.time; ++r)
    for (int64_t p = 0; p < parts; ++p) {
      To* out = to.data + r * to.ld + p * to.part;
      const From* in = from.data + r * from.ld + p * from.part;
      for (int64_t c = 0; c < args.head_dim; ++c) out[c] = static_cast<To>(in[c]);
    }
}

/// Where a head's result is computed in P: the columns themselves, or `buffer` when they are of a storage type.
template <typename P, typename T>
Columns<P> room_for(const Columns<T>& columns, std::vector<P>& buffer, const AttentionArgs& args, int64_t parts) {
  if constexpr (std::is_same_v<T, P>) return columns;
  buffer.resize(static_cast<size_t>(args.time * parts * args.head_dim));
  return {buffer.data(), parts * args.head_dim, args.head_dim};
}

/// The columns in P.
template <typename P, typename T>
Columns<P> load(const Columns<T>& columns, std::vector<P>& buffer, const AttentionArgs& args, int64_t parts) {
  const Columns<P> loaded = room_for(columns, buffer, args, parts);
  if constexpr (!std::is_same_v<T, P>) convert(loaded, columns, args, parts);
  return loaded;
}

/// Writes back what was computed in room_for(columns).
template <typename P, typename T>
void store(const Columns<T>& columns, const Columns<P>& computed, const AttentionArgs& args, int64_t parts) {
  if constexpr (!std::is_same_v<T, P>) convert(columns, computed, args, parts);
}

/// What one thread needs; kept between calls.
template <typename P>
struct Scratch {
  std::vector<P> scores, dscores;
  std::vector<P> qkv, out, dqkv, dout;  // copies in P
};

/// One head of one batch row.
template <typename P>
struct Head {
  const P *q, *k, *v;
  int64_t ld, time, dim, row;  // row = (b * heads + h) * time: index of the first query in lse and in the mask
  bool causal;
  P scale;
  int64_t mask_stride;  // keep-bit elements per query row
  uint32_t threshold;   // 0: no dropout
  P keep_scale;
  const RandomStream* stream;

  int64_t keys(int64_t first, int64_t count) const { return causal ? first + count : time; }
};

template <typename P>
Head<P> head_of(const Columns<P>& qkv, const AttentionArgs& args, int64_t index, const RandomStream& stream) {
  return {.q = qkv.data,
          .k = qkv.data + qkv.part,
          .v = qkv.data + 2 * qkv.part,
          .ld = qkv.ld,
          .time = args.time,
          .dim = args.head_dim,
          .row = index * args.time,
          .causal = args.causal,
          .scale = static_cast<P>(1.0 / std::sqrt(static_cast<double>(args.head_dim))),
          .mask_stride = (args.time + 127) / 128 * 128,
          .threshold = args.dropout > 0.0 ? drop_threshold(args.dropout) : 0,
          .keep_scale = static_cast<P>(1.0 / (1.0 - args.dropout)),
          .stream = &stream};
}

/// scores[count, keys] = scale * Q_block K^P
template <typename P>
void block_scores(const Head<P>& head, int64_t first, int64_t count, int64_t keys, P* scores) {
  gemm(false, true, count, keys, head.dim, head.scale, head.q + first * head.ld, head.ld, head.k, head.ld, P{0}, scores,
       keys);
}

/// Row r of the block sees keys 0 .. visible-1.
template <typename P>
int64_t visible(const Head<P>& head, int64_t query) {
  return head.causal ? query + 1 : head.time;
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
void softmax_block(const Head<P>& head, int64_t first, int64_t count, int64_t keys, P* scores, P* lse) {
  for (int64_t r = 0; r < count; ++r) {
    P* s = scores + r * keys;
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
void softmax_grad_block(const Head<P>& head, int64_t first, int64_t count, int64_t keys, P* scores, P* dscores,
                        const P* lse, const P* delta) {
  for (int64_t r = 0; r < count; ++r) {
    P *s = scores + r * keys, *d = dscores + r * keys;
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

template <typename P>
void head_forward(const Head<P>& head, const Columns<P>& out, P* lse, std::vector<P>& scores) {
  scores.resize(static_cast<size_t>(kQueryBlock * head.time));
  for (int64_t first = 0; first < head.time; first += kQueryBlock) {
    const int64_t count = std::min(kQueryBlock, head.time - first), keys = head.keys(first, count);
    block_scores(head, first, count, keys, scores.data());
    softmax_block(head, first, count, keys, scores.data(), lse);
    gemm(false, false, count, head.dim, keys, P{1}, scores.data(), keys, head.v, head.ld, P{0},
         out.data + first * out.ld, out.ld);
  }
}

/// `dqkv` is laid out as the head's q, k and v are, `dout` as `out`.
template <typename P>
void head_backward(const Head<P>& head, const Columns<P>& dqkv, const Columns<P>& out, const Columns<P>& dout,
                   const P* lse, Scratch<P>& scratch) {
  const int64_t ld_out = out.ld;
  P *dq = dqkv.data, *dk = dq + dqkv.part, *dv = dq + 2 * dqkv.part;
  scratch.scores.resize(static_cast<size_t>(kQueryBlock * head.time));
  scratch.dscores.resize(scratch.scores.size());
  P *scores = scratch.scores.data(), *dscores = scratch.dscores.data();
  // From the last block down: the first one handled covers all keys, so it may overwrite dk and dv.
  P beta = 0;
  for (int64_t first = (head.time - 1) / kQueryBlock * kQueryBlock; first >= 0; first -= kQueryBlock) {
    const int64_t count = std::min(kQueryBlock, head.time - first), keys = head.keys(first, count);
    const P* grad = dout.data + first * ld_out;
    P delta[kQueryBlock];
    for (int64_t r = 0; r < count; ++r) {
      const P *o = out.data + (first + r) * ld_out, *g = grad + r * ld_out;
      P sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < head.dim; ++c) sum += o[c] * g[c];
      delta[r] = sum;
    }
    block_scores(head, first, count, keys, scores);
    gemm(false, true, count, keys, head.dim, P{1}, grad, ld_out, head.v, head.ld, P{0}, dscores, keys);
    softmax_grad_block(head, first, count, keys, scores, dscores, lse, delta);
    gemm(true, false, keys, head.dim, count, P{1}, scores, keys, grad, ld_out, beta, dv, head.ld);
    gemm(false, false, count, head.dim, keys, head.scale, dscores, keys, head.k, head.ld, P{0}, dq + first * head.ld,
         head.ld);
    gemm(true, false, keys, head.dim, count, head.scale, dscores, keys, head.q + first * head.ld, head.ld, beta, dk,
         head.ld);
    beta = 1;
  }
}

}  // namespace

void attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const AttentionArgs& args) {
  const RandomStream stream(args.key);
  dispatch_float(qkv.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
#pragma omp parallel
    {
      static thread_local Scratch<P> scratch;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < args.batch * args.heads; ++i) {
        const auto in = load(columns_of<T>(qkv, args, i, 3), scratch.qkv, args, 3);
        const auto result = columns_of<T>(out, args, i, 1);
        const auto computed = room_for(result, scratch.out, args, 1);
        head_forward(head_of(in, args, i, stream), computed, lse.as<P>(), scratch.scores);
        store(result, computed, args, 1);
      }
    }
  });
}

void attention_grad(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse, const Tensor& qkv,
                    const AttentionArgs& args) {
  const RandomStream stream(args.key);
  dispatch_float(qkv.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
#pragma omp parallel
    {
      static thread_local Scratch<P> scratch;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < args.batch * args.heads; ++i) {
        const auto in = load(columns_of<T>(qkv, args, i, 3), scratch.qkv, args, 3);
        const auto forward = load(columns_of<T>(out, args, i, 1), scratch.out, args, 1);
        const auto grad = load(columns_of<T>(dout, args, i, 1), scratch.dout, args, 1);
        const auto result = columns_of<T>(dqkv, args, i, 3);
        const auto computed = room_for(result, scratch.dqkv, args, 3);
        head_backward(head_of(in, args, i, stream), computed, forward, grad, lse.as<P>(), scratch);
        store(result, computed, args, 3);
      }
    }
  });
}

}  // namespace qn::cpu
