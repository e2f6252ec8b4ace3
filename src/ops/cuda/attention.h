// The two ways of computing attention; attention.cpp chooses. All arguments as of the kernels of ops/kernels.h.
#pragma once

#include "core/tensor.h"
#include "ops/cuda/context.h"
#include "ops/cuda/keep_bits.h"
#include "ops/kernels.h"

namespace qn::cuda {

inline constexpr int64_t kAttentionScratchBytes = int64_t{256} << 20;  // of one buffer; one head may take more

/// Batched matrix products over scores in global memory, for every type and shape.
void plain_attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv,
                     const AttentionArgs& args);
void plain_attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                          const Tensor& q, const Tensor& kv, const AttentionArgs& args);

/// Whether the fused kernels can take a head dimension. They want bf16 or f16, and tensors aligned to 16 bytes.
constexpr bool is_fused_head_dim(int64_t head_dim) { return head_dim == 32 || head_dim == 64 || head_dim == 128; }
/// Bytes of shared memory that a block of the largest fused kernel needs.
size_t fused_attention_shared_bytes(int64_t head_dim);

/// Tensor cores, with tiles of scores in registers only.
void fused_attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv,
                     const AttentionArgs& args);
void fused_attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                          const Tensor& q, const Tensor& kv, const AttentionArgs& args);

/// The first of the key columns of a matrix.
inline int64_t key_column(const Tensor& kv, const AttentionArgs& args) {
  return kv.cols() - 2 * args.heads * args.head_dim;
}

template <typename E>
E* attention_scratch(int64_t n) {
  return static_cast<E*>(Context::current().scratch().allocate(static_cast<size_t>(n) * sizeof(E)));
}

/// Groups of keep bits (ops/keep_bits.h) of one query's keys.
inline int64_t mask_groups(const AttentionArgs& args) { return (args.keys.longest + 127) / 128; }

/// Of the two passes the first draws keep bits; the second draws them again where there was no room to keep them.
enum class Pass { forward, backward };

/// A run of heads, counted as b * heads + h, with the keep bits of their probabilities: [count * longest query, 4 *
/// mask_groups] words of 32 keys, or nullptr where nothing is dropped. kMaskPadding rows behind the last one may be
/// read.
inline constexpr int64_t kMaskPadding = 128;
struct HeadRun {
  int64_t first, count;
  const uint32_t* keep_bits;
};

/// Calls f(HeadRun) until all heads have been named; a run's bits are gone when f has queued its kernels, unless the
/// caller keeps all of them.
template <typename F>
void for_each_head_run(const AttentionArgs& args, Pass pass, F&& f) {
  const int64_t heads = args.batch * args.heads;
  const uint32_t threshold = args.dropout > 0.0 ? drop_threshold(args.dropout) : 0;
  if (threshold == 0) return f(HeadRun{0, heads, nullptr});
  if (args.kept != nullptr) {
    if (pass == Pass::forward) draw_attention_bits(args.kept, 0, heads, threshold, args);
    return f(HeadRun{0, heads, reinterpret_cast<const uint32_t*>(args.kept)});
  }
  const int64_t groups = args.queries.longest * mask_groups(args);  // of a head
  const int64_t run = std::clamp<int64_t>(kAttentionScratchBytes / (groups * 16), 1, heads);
  auto* bits = attention_scratch<uint64_t>((run * groups + kMaskPadding * mask_groups(args)) * 2);
  for (int64_t first = 0; first < heads; first += run) {
    const int64_t count = std::min(run, heads - first);
    draw_attention_bits(bits, first, count, threshold, args);
    f(HeadRun{first, count, reinterpret_cast<const uint32_t*>(bits)});
  }
}

}  // namespace qn::cuda
