// Attention through batched matrix products: the scores of as many heads as fit into a fixed amount of scratch memory
// exist at a time. The backward recomputes the probabilities from the stored log of the softmax denominator.
#include <cmath>

#include "ops/cuda/attention.h"
#include "ops/cuda/matmul_plans.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

constexpr int kRowThreads = 128;

/// Which of a row's keys count, and by how much. Rows are queries: row (b * heads + h) * time + q.
template <typename P>
struct RowMask {
  const uint32_t* bits;  // of the chunk's first row, or nullptr without dropout
  int64_t words_per_row;
  P keep_scale;
  bool causal;

  __device__ int64_t visible(int64_t query, int64_t time) const { return causal ? query + 1 : time; }
  __device__ P factor(int64_t row_in_chunk, int64_t key) const {
    if (bits == nullptr) return P{1};
    return ((bits[row_in_chunk * words_per_row + key / 32] >> (key % 32)) & 1U) != 0 ? keep_scale : P{0};
  }
};

// Grid (queries, heads of the chunk). Scores become dropped-out probabilities; hidden keys become 0.
template <typename T, typename P>
__global__ void softmax_kernel(T* probabilities, P* lse, const P* scores, RowMask<P> mask, int64_t time) {
  const int64_t query = blockIdx.x, row = blockIdx.y * time + query, n = mask.visible(query, time);
  const P* s = scores + row * time;
  T* p = probabilities + row * time;
  P max = s[0];
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x) max = s[c] > max ? s[c] : max;
  max = block_max(max);
  P sum = 0;
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x) sum += exp(s[c] - max);
  sum = block_sum(sum);
  const P inverse = P{1} / sum;
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x)
    p[c] = static_cast<T>(exp(s[c] - max) * inverse * mask.factor(row, c));
  for (int64_t c = n + threadIdx.x; c < time; c += blockDim.x) p[c] = static_cast<T>(P{0});
  if (threadIdx.x == 0) lse[row] = max + log(sum);
}

/// What the backward's softmax reads of one chunk. `out` and `dout` start at the chunk's first head.
template <typename T, typename P>
struct GradInput {
  const P *scores, *dprobabilities, *lse;
  const T *out, *dout;
  int64_t time, dim, ld;
};

// Grid (queries, heads of the chunk). From scores and the gradient of the dropped-out probabilities to those
// probabilities themselves and the gradient of the scaled scores.
template <typename T, typename P>
__global__ void softmax_grad_kernel(T* probabilities, T* dscores, GradInput<T, P> in, RowMask<P> mask) {
  const int64_t query = blockIdx.x, head = blockIdx.y, time = in.time, row = head * time + query;
  const int64_t n = mask.visible(query, time), offset = query * in.ld + head * in.dim;
  P delta = 0;
  for (int64_t c = threadIdx.x; c < in.dim; c += blockDim.x)
    delta += static_cast<P>(in.out[offset + c]) * static_cast<P>(in.dout[offset + c]);
  delta = block_sum(delta);
  const P *s = in.scores + row * time, *d = in.dprobabilities + row * time;
  const P shift = in.lse[row];
  for (int64_t c = threadIdx.x; c < time; c += blockDim.x) {
    P p = 0, ds = 0;
    if (c < n) {
      const P factor = mask.factor(row, c), x = s[c] - shift;
      p = exp(x < P{0} ? x : P{0});
      ds = p * (factor * d[c] - delta);
      p *= factor;
    }
    probabilities[row * time + c] = static_cast<T>(p);
    dscores[row * time + c] = static_cast<T>(ds);
  }
}

/// A run of heads of one batch row.
struct Chunk {
  int64_t b, first, count;
};

/// Shapes, strides and scratch shared by the products of a call.
template <typename T>
class Attention {
 public:
  using P = ParameterOf<T>;

  /// `matrices`: scratch of so many bytes per pair of query and key.
  Attention(const AttentionArgs& args, int64_t bytes_per_pair)
      : args_(args),
        width_(args.heads * args.head_dim),
        pairs_(args.time * args.time),
        chunk_(std::clamp<int64_t>(kAttentionScratchBytes / (pairs_ * bytes_per_pair), 1,
                                   std::min<int64_t>(args.heads, 65535))),
        groups_per_row_(mask_groups(args)),
        threshold_(args.dropout > 0.0 ? drop_threshold(args.dropout) : 0) {
    if (threshold_ > 0) bits_ = attention_scratch<uint64_t>(chunk_ * args.time * groups_per_row_ * 2);
  }

  template <typename F>
  void for_each_chunk(F&& f) const {
    for (int64_t b = 0; b < args_.batch; ++b)
      for (int64_t h = 0; h < args_.heads; h += chunk_) f(Chunk{b, h, std::min(chunk_, args_.heads - h)});
  }

  template <typename E>
  E* scratch_matrices() const {
    return attention_scratch<E>(chunk_ * pairs_);
  }

  /// First element of the chunk in a tensor [batch * time, parts * width] whose rows hold `parts` blocks of all heads.
  template <typename E>
  E* at(E* data, const Chunk& chunk, int64_t parts, int64_t part = 0) const {
    return data + (chunk.b * args_.time * parts + part) * width_ + chunk.first * args_.head_dim;
  }
  /// Index of the chunk's first query among all rows of lse and of the mask.
  int64_t row(const Chunk& chunk) const { return (chunk.b * args_.heads + chunk.first) * args_.time; }

  RowMask<P> mask(const Chunk& chunk) const {
    RowMask<P> mask{nullptr, groups_per_row_ * 4, static_cast<P>(1.0 / (1.0 - args_.dropout)), args_.causal};
    if (threshold_ == 0) return mask;
    draw_attention_bits(bits_, {row(chunk), chunk.count * args_.time, args_.time, args_.causal}, threshold_, args_.key);
    mask.bits = reinterpret_cast<const uint32_t*>(bits_);
    return mask;
  }
  dim3 grid(const Chunk& chunk) const {
    return {static_cast<unsigned>(args_.time), static_cast<unsigned>(chunk.count)};
  }

  /// c[time, time] = alpha * a b^T for each head: a, b [time, head_dim] with leading dimensions.
  void multiply_rows(const Chunk& chunk, P* c, const T* a, int64_t lda, const T* b, int64_t ldb, double alpha) const {
    batched_matmul({.dtype = dtype_of<T>(),
                    .dtype_c = dtype_of<P>(),
                    .transpose_b = true,
                    .m = args_.time,
                    .n = args_.time,
                    .k = args_.head_dim,
                    .a = a,
                    .lda = lda,
                    .b = b,
                    .ldb = ldb,
                    .c = c,
                    .ldc = args_.time,
                    .alpha = alpha},
                   {chunk.count, args_.head_dim, args_.head_dim, pairs_});
  }

  /// c[time, head_dim] = alpha * op(a) b for each head, a [time, time].
  void weigh_rows(const Chunk& chunk, T* c, int64_t ldc, const T* a, bool transpose_a, const T* b, int64_t ldb,
                  double alpha) const {
    batched_matmul({.dtype = dtype_of<T>(),
                    .dtype_c = dtype_of<T>(),
                    .transpose_a = transpose_a,
                    .m = args_.time,
                    .n = args_.head_dim,
                    .k = args_.time,
                    .a = a,
                    .lda = args_.time,
                    .b = b,
                    .ldb = ldb,
                    .c = c,
                    .ldc = ldc,
                    .alpha = alpha},
                   {chunk.count, pairs_, args_.head_dim, args_.head_dim});
  }

  /// scores = q k^T / sqrt(head_dim)
  void scores(const Chunk& chunk, P* scores, const T* qkv) const {
    multiply_rows(chunk, scores, at(qkv, chunk, 3, 0), 3 * width_, at(qkv, chunk, 3, 1), 3 * width_, scale());
  }

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(args_.head_dim)); }
  int64_t width() const { return width_; }

 private:
  AttentionArgs args_;
  int64_t width_, pairs_, chunk_, groups_per_row_;
  uint32_t threshold_;
  uint64_t* bits_ = nullptr;
};

template <typename T>
void forward(const Tensor& out, const Tensor& lse, const Tensor& qkv, const AttentionArgs& args) {
  using P = ParameterOf<T>;
  const Attention<T> attention(args, sizeof(P) + sizeof(T));
  auto* scores = attention.template scratch_matrices<P>();
  auto* probabilities = attention.template scratch_matrices<T>();
  const T* input = data_of<T>(qkv);
  attention.for_each_chunk([&](const Chunk& chunk) {
    attention.scores(chunk, scores, input);
    launch(softmax_kernel<T, P>, attention.grid(chunk), kRowThreads, probabilities,
           data_of<P>(lse) + attention.row(chunk), scores, attention.mask(chunk), args.time);
    attention.weigh_rows(chunk, attention.at(data_of<T>(out), chunk, 1), attention.width(), probabilities, false,
                         attention.at(input, chunk, 3, 2), 3 * attention.width(), 1.0);
  });
}

template <typename T>
void backward(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse, const Tensor& qkv,
              const AttentionArgs& args) {
  using P = ParameterOf<T>;
  const Attention<T> attention(args, 2 * (sizeof(P) + sizeof(T)));
  auto *scores = attention.template scratch_matrices<P>(), *dprobabilities = attention.template scratch_matrices<P>();
  auto *probabilities = attention.template scratch_matrices<T>(), *dscores = attention.template scratch_matrices<T>();
  const T* input = data_of<T>(qkv);
  T* result = data_of<T>(dqkv);
  const int64_t width = attention.width(), ld = 3 * width;
  const double scale = attention.scale();
  attention.for_each_chunk([&](const Chunk& chunk) {
    const T *q = attention.at(input, chunk, 3, 0), *k = attention.at(input, chunk, 3, 1);
    const T *v = attention.at(input, chunk, 3, 2), *grad = attention.at(data_of<T>(dout), chunk, 1);
    attention.scores(chunk, scores, input);
    attention.multiply_rows(chunk, dprobabilities, grad, width, v, ld, 1.0);
    const GradInput<T, P> in{scores,
                             dprobabilities,
                             data_of<P>(lse) + attention.row(chunk),
                             attention.at(data_of<T>(out), chunk, 1),
                             grad,
                             args.time,
                             args.head_dim,
                             width};
    launch(softmax_grad_kernel<T, P>, attention.grid(chunk), kRowThreads, probabilities, dscores, in,
           attention.mask(chunk));
    attention.weigh_rows(chunk, attention.at(result, chunk, 3, 2), ld, probabilities, true, grad, width, 1.0);
    attention.weigh_rows(chunk, attention.at(result, chunk, 3, 0), ld, dscores, false, k, ld, scale);
    attention.weigh_rows(chunk, attention.at(result, chunk, 3, 1), ld, dscores, true, q, ld, scale);
  });
}

}  // namespace

void plain_attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const AttentionArgs& args) {
  dispatch_float(qkv.dtype, [&](auto tag) { forward<decltype(tag)>(out, lse, qkv, args); });
}

void plain_attention_grad(const Tensor& dqkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                          const Tensor& qkv, const AttentionArgs& args) {
  dispatch_float(qkv.dtype, [&](auto tag) { backward<decltype(tag)>(dqkv, dout, out, lse, qkv, args); });
}

}  // namespace qn::cuda
