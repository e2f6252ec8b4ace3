// Attention by blocks of query rows: one block of scores per thread instead of a time x time matrix. The backward
// recomputes the probabilities from the stored log of the softmax denominator.
#include <cmath>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"

namespace qn::cpu {
namespace {

constexpr int64_t kQueryBlock = 64;

/// One head of one batch row: pointers into the interleaved tensors, and the scratch of its thread.
template <typename T>
struct Head {
  const T *q, *k, *v;
  int64_t ld, time, dim, row;  // row = (b * heads + h) * time: index of the first query in lse and in the mask
  bool causal;
  T scale;
  int64_t mask_stride;  // keep-bit elements per query row
  uint32_t threshold;   // 0: no dropout
  T keep_scale;
  const RandomStream* stream;

  int64_t keys(int64_t first, int64_t count) const { return causal ? first + count : time; }
};

template <typename T>
Head<T> head_of(const Tensor& qkv, const AttentionArgs& args, int64_t index, const RandomStream& stream) {
  const int64_t width = args.heads * args.head_dim, b = index / args.heads, h = index % args.heads;
  const T* base = qkv.as<T>() + b * args.time * 3 * width + h * args.head_dim;
  return {.q = base,
          .k = base + width,
          .v = base + 2 * width,
          .ld = 3 * width,
          .time = args.time,
          .dim = args.head_dim,
          .row = index * args.time,
          .causal = args.causal,
          .scale = static_cast<T>(1.0 / std::sqrt(static_cast<double>(args.head_dim))),
          .mask_stride = (args.time + 127) / 128 * 128,
          .threshold = args.dropout > 0.0 ? drop_threshold(args.dropout) : 0,
          .keep_scale = static_cast<T>(1.0 / (1.0 - args.dropout)),
          .stream = &stream};
}

/// scores[count, keys] = scale * Q_block K^T
template <typename T>
void block_scores(const Head<T>& head, int64_t first, int64_t count, int64_t keys, T* scores) {
  gemm(false, true, count, keys, head.dim, head.scale, head.q + first * head.ld, head.ld, head.k, head.ld, T{0}, scores,
       keys);
}

/// Row r of the block sees keys 0 .. visible-1.
template <typename T>
int64_t visible(const Head<T>& head, int64_t query) {
  return head.causal ? query + 1 : head.time;
}

/// Multiplies p[0, n) by its dropout mask: 0 or keep_scale.
template <typename T>
void drop_row(const Head<T>& head, int64_t query, T* p, int64_t n) {
  if (head.threshold == 0) return;
  const int64_t first_group = (head.row + query) * (head.mask_stride / 128);
  for (int64_t begin = 0; begin < n; begin += 128) {
    uint64_t words[2];
    keep_bits_group(words, first_group + begin / 128, head.threshold, *head.stream);
    uint32_t bits[4];
    __builtin_memcpy(bits, words, sizeof bits);
    const int64_t count = std::min<int64_t>(128, n - begin);
    for (int64_t part = 0; part * 32 < count; ++part) {
      T* row = p + begin + part * 32;
      const uint32_t word = bits[part], m = static_cast<uint32_t>(std::min<int64_t>(32, count - part * 32));
#pragma omp simd
      for (uint32_t j = 0; j < m; ++j) row[j] *= ((word >> j) & 1U) != 0 ? head.keep_scale : T{0};
    }
  }
}

/// Scores become dropped-out probabilities; hidden keys become 0. Writes the log denominators.
template <typename T>
void softmax_block(const Head<T>& head, int64_t first, int64_t count, int64_t keys, T* scores, T* lse) {
  for (int64_t r = 0; r < count; ++r) {
    T* s = scores + r * keys;
    const int64_t n = visible(head, first + r);
    T max = s[0];
#pragma omp simd reduction(max : max)
    for (int64_t c = 1; c < n; ++c) max = s[c] > max ? s[c] : max;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; ++c) {
      s[c] = exp_nonpositive(s[c] - max);
      sum += s[c];
    }
    const T inverse = T{1} / sum;
    for (int64_t c = 0; c < n; ++c) s[c] *= inverse;
    std::fill(s + n, s + keys, T{0});
    lse[head.row + first + r] = max + std::log(sum);
    drop_row(head, first + r, s, n);
  }
}

/// scores -> dropped-out probabilities (in place); dscores (holding dOut V^T) -> gradient of the scaled scores.
template <typename T>
void softmax_grad_block(const Head<T>& head, int64_t first, int64_t count, int64_t keys, T* scores, T* dscores,
                        const T* lse, const T* delta, std::vector<T>& mask) {
  for (int64_t r = 0; r < count; ++r) {
    T *s = scores + r * keys, *d = dscores + r * keys;
    const int64_t n = visible(head, first + r);
    const T shift = lse[head.row + first + r], del = delta[r];
    std::fill(mask.begin(), mask.begin() + n, T{1});
    drop_row(head, first + r, mask.data(), n);
    for (int64_t c = 0; c < n; ++c) {
      const T x = s[c] - shift;
      const T p = exp_nonpositive(x < T{0} ? x : T{0});
      d[c] = p * (mask[static_cast<size_t>(c)] * d[c] - del);
      s[c] = p * mask[static_cast<size_t>(c)];
    }
    std::fill(s + n, s + keys, T{0});
    std::fill(d + n, d + keys, T{0});
  }
}

template <typename T>
void head_forward(const Head<T>& head, T* out, int64_t ld_out, T* lse, std::vector<T>& scores) {
  scores.resize(static_cast<size_t>(kQueryBlock * head.time));
  for (int64_t first = 0; first < head.time; first += kQueryBlock) {
    const int64_t count = std::min(kQueryBlock, head.time - first), keys = head.keys(first, count);
    block_scores(head, first, count, keys, scores.data());
    softmax_block(head, first, count, keys, scores.data(), lse);
    gemm(false, false, count, head.dim, keys, T{1}, scores.data(), keys, head.v, head.ld, T{0}, out + first * ld_out,
         ld_out);
  }
}

template <typename T>
struct Scratch {
  std::vector<T> scores, dscores, mask;
};

template <typename T>
void head_backward(const Head<T>& head, T* dq, const T* out, const T* dout, int64_t ld_out, const T* lse,
                   Scratch<T>& scratch) {
  const int64_t width = ld_out;
  T *dk = dq + width, *dv = dq + 2 * width;
  scratch.scores.resize(static_cast<size_t>(kQueryBlock * head.time));
  scratch.dscores.resize(scratch.scores.size());
  scratch.mask.resize(static_cast<size_t>(head.time));
  T *scores = scratch.scores.data(), *dscores = scratch.dscores.data();
  // From the last block down: the first one handled covers all keys, so it may overwrite dk and dv.
  T beta = 0;
  for (int64_t first = (head.time - 1) / kQueryBlock * kQueryBlock; first >= 0; first -= kQueryBlock) {
    const int64_t count = std::min(kQueryBlock, head.time - first), keys = head.keys(first, count);
    const T* grad = dout + first * ld_out;
    T delta[kQueryBlock];
    for (int64_t r = 0; r < count; ++r) {
      const T *o = out + (first + r) * ld_out, *g = grad + r * ld_out;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < head.dim; ++c) sum += o[c] * g[c];
      delta[r] = sum;
    }
    block_scores(head, first, count, keys, scores);
    gemm(false, true, count, keys, head.dim, T{1}, grad, ld_out, head.v, head.ld, T{0}, dscores, keys);
    softmax_grad_block(head, first, count, keys, scores, dscores, lse, delta, scratch.mask);
    gemm(true, false, keys, head.dim, count, T{1}, scores, keys, grad, ld_out, beta, dv, head.ld);
    gemm(false, false, count, head.dim, keys, head.scale, dscores, keys, head.k, head.ld, T{0}, dq + first * head.ld,
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
    const int64_t width = args.heads * args.head_dim;
#pragma omp parallel
    {
      static thread_local std::vector<T> scores;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < args.batch * args.heads; ++i) {
        T* o = out.as<T>() + (i / args.heads) * args.time * width + (i % args.heads) * args.head_dim;
        head_forward(head_of<T>(qkv, args, i, stream), o, width, lse.as<T>(), scores);
      }
    }
  });
}

void attention_grad(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse, const Tensor& qkv,
                    const AttentionArgs& args) {
  const RandomStream stream(args.key);
  dispatch_float(qkv.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t width = args.heads * args.head_dim;
#pragma omp parallel
    {
      static thread_local Scratch<T> scratch;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < args.batch * args.heads; ++i) {
        const int64_t offset = (i / args.heads) * args.time * width + (i % args.heads) * args.head_dim;
        T* dq = dqkv.as<T>() + (i / args.heads) * args.time * 3 * width + (i % args.heads) * args.head_dim;
        head_backward(head_of<T>(qkv, args, i, stream), dq, out.as<T>() + offset, dout.as<T>() + offset, width,
                      lse.as<T>(), scratch);
      }
    }
  });
}

}  // namespace qn::cpu
