// Attention through batched matrix products: the scores of as many heads as fit into a fixed amount of scratch memory
// exist at a time. The backward recomputes the probabilities from the stored log of the softmax denominator. Sequences
// of unequal length, whose lengths the host does not know, are filled up with zeros to the longest one's in scratch.
#include <cmath>

#include "ops/cuda/attention.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/matmul_plans.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

constexpr int kRowThreads = 128;

/// Which of a row's keys count, and by how much. Rows are queries: row (b * heads + h) * longest query + q.
template <typename P>
struct RowMask {
  const uint32_t* bits;  // of the chunk's first row, or nullptr without dropout
  int64_t words_per_row;
  P keep_scale;
  bool causal;
  int64_t keys;             // of the longest sequence
  const int32_t* own_keys;  // of the chunk's sequence, where that is not the same

  __device__ int64_t visible(int64_t query) const {
    const int64_t count = own_keys != nullptr ? *own_keys : keys;
    return causal && query < count ? query + 1 : count;
  }
  __device__ P factor(int64_t row_in_chunk, int64_t key) const {
    if (bits == nullptr) return P{1};
    return ((bits[row_in_chunk * words_per_row + key / 32] >> (key % 32)) & 1U) != 0 ? keep_scale : P{0};
  }
};

// Grid (queries, heads of the chunk). Scores become dropped-out probabilities; hidden keys become 0.
template <typename T, typename P>
__global__ void softmax_kernel(T* probabilities, P* lse, const P* scores, RowMask<P> mask) {
  const int64_t query = blockIdx.x, row = blockIdx.y * static_cast<int64_t>(gridDim.x) + query;
  const int64_t n = mask.visible(query);
  const P* s = scores + row * mask.keys;
  T* p = probabilities + row * mask.keys;
  P max = s[0];
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x) max = s[c] > max ? s[c] : max;
  max = block_max(max);
  P sum = 0;
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x) sum += exp(s[c] - max);
  sum = block_sum(sum);
  const P inverse = P{1} / sum;
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x)
    p[c] = static_cast<T>(exp(s[c] - max) * inverse * mask.factor(row, c));
  for (int64_t c = n + threadIdx.x; c < mask.keys; c += blockDim.x) p[c] = static_cast<T>(P{0});
  if (threadIdx.x == 0) lse[row] = n > 0 ? max + log(sum) : P{0};
}

/// Rows of one head beside each other: a matrix with `ld` elements between rows.
template <typename T>
struct Rows {
  T* data;
  int64_t ld;
  operator Rows<const T>() const { return {data, ld}; }
};

/// What the backward's softmax reads of one chunk. `out` and `dout` start at the chunk's first head.
template <typename T, typename P>
struct GradInput {
  const P *scores, *dprobabilities, *lse;
  Rows<const T> out, dout;
  int64_t dim;
};

// Grid (queries, heads of the chunk). From scores and the gradient of the dropped-out probabilities to those
// probabilities themselves and the gradient of the scaled scores.
template <typename T, typename P>
__global__ void softmax_grad_kernel(T* probabilities, T* dscores, GradInput<T, P> in, RowMask<P> mask) {
  const int64_t query = blockIdx.x, head = blockIdx.y, row = head * static_cast<int64_t>(gridDim.x) + query;
  const int64_t n = mask.visible(query), keys = mask.keys;
  const T *out = in.out.data + query * in.out.ld + head * in.dim,
          *dout = in.dout.data + query * in.dout.ld + head * in.dim;
  P delta = 0;
  for (int64_t c = threadIdx.x; c < in.dim; c += blockDim.x) delta += static_cast<P>(out[c]) * static_cast<P>(dout[c]);
  delta = block_sum(delta);
  const P *s = in.scores + row * keys, *d = in.dprobabilities + row * keys;
  const P shift = in.lse[row];
  for (int64_t c = threadIdx.x; c < keys; c += blockDim.x) {
    P p = 0, ds = 0;
    if (c < n) {
      const P factor = mask.factor(row, c), x = s[c] - shift;
      p = exp(x < P{0} ? x : P{0});
      ds = p * (factor * d[c] - delta);
      p *= factor;
    }
    probabilities[row * keys + c] = static_cast<T>(p);
    dscores[row * keys + c] = static_cast<T>(ds);
  }
}

// Rows of one sequence, zeros behind the last, from or to where the sequence is.
template <typename T>
__global__ void take_sequence_kernel(T* to, Rows<const T> from, const int32_t* begin, const int32_t* length,
                                     int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
    to[r * cols + c] = r < *length ? from.data[(*begin + r) * from.ld + c] : static_cast<T>(0.0f);
}
template <typename T>
__global__ void put_sequence_kernel(Rows<T> to, const T* from, const int32_t* begin, const int32_t* length,
                                    int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows && r < *length; r += gridDim.y)
    to.data[(*begin + r) * to.ld + c] = from[r * cols + c];
}

/// A run of heads of one sequence.
struct Chunk {
  int64_t b, first, count;
};

/// Shapes, strides and scratch shared by the products of a call.
template <typename T>
class Attention {
 public:
  using P = ParameterOf<T>;

  /// `matrices`: scratch of so many bytes per pair of query and key.
  Attention(const AttentionArgs& args, Pass pass, int64_t bytes_per_pair)
      : args_(args),
        pass_(pass),
        pairs_(args.queries.longest * args.keys.longest),
        chunk_(std::clamp<int64_t>(kAttentionScratchBytes / (pairs_ * bytes_per_pair), 1,
                                   std::min<int64_t>(args.heads, 65535))),
        groups_per_row_(mask_groups(args)),
        threshold_(args.dropout > 0.0 ? drop_threshold(args.dropout) : 0) {
    if (threshold_ > 0 && args.kept == nullptr)
      bits_ = attention_scratch<uint64_t>(chunk_ * args.queries.longest * groups_per_row_ * 2);
  }

  template <typename F>
  void for_each_chunk(F&& f) const {
    for (int64_t b = 0; b < args_.batch; ++b)
      for (int64_t h = 0; h < args_.heads; h += chunk_) {
        const ScratchScope scope(Context::current().scratch());
        f(Chunk{b, h, std::min(chunk_, args_.heads - h)});
      }
  }

  template <typename E>
  E* scratch_matrices() const {
    return attention_scratch<E>(chunk_ * pairs_);
  }

  /// The chunk's rows of a matrix of queries (or keys), in which its heads begin at `column`: where they are, or, of
  /// sequences of unequal length, a copy that is as long as the longest.
  Rows<const T> load(const Tensor& from, int64_t column, const Chunk& chunk, const RowSequences& sequences) const {
    const Rows<const T> heads = heads_of(from, column, chunk);
    if (sequences.begins == nullptr) return {heads.data + chunk.b * sequences.longest * heads.ld, heads.ld};
    const int64_t cols = chunk.count * args_.head_dim;
    T* copy = attention_scratch<T>(sequences.longest * cols);
    launch(take_sequence_kernel<T>, matrix_grid(sequences.longest, cols), kThreads, copy, heads,
           sequences.begins + chunk.b, sequences.lengths + chunk.b, sequences.longest, cols);
    return {copy, cols};
  }
  /// Where such rows are computed, and then put where they belong.
  Rows<T> room_for(const Tensor& to, int64_t column, const Chunk& chunk, const RowSequences& sequences) const {
    const Rows<T> heads = heads_of(to, column, chunk);
    if (sequences.begins == nullptr) return {heads.data + chunk.b * sequences.longest * heads.ld, heads.ld};
    const int64_t cols = chunk.count * args_.head_dim;
    return {attention_scratch<T>(sequences.longest * cols), cols};
  }
  void store(const Tensor& to, int64_t column, const Rows<T>& computed, const Chunk& chunk,
             const RowSequences& sequences) const {
    if (sequences.begins == nullptr) return;
    const int64_t cols = chunk.count * args_.head_dim;
    launch(put_sequence_kernel<T>, matrix_grid(sequences.longest, cols), kThreads, heads_of(to, column, chunk),
           computed.data, sequences.begins + chunk.b, sequences.lengths + chunk.b, sequences.longest, cols);
  }

  /// Index of the chunk's first query among all rows of lse and of the mask.
  int64_t row(const Chunk& chunk) const { return (chunk.b * args_.heads + chunk.first) * args_.queries.longest; }

  RowMask<P> mask(const Chunk& chunk) const {
    RowMask<P> mask{
        nullptr,      groups_per_row_ * 4, static_cast<P>(1.0 / (1.0 - args_.dropout)),
        args_.causal, args_.keys.longest,  args_.keys.lengths != nullptr ? args_.keys.lengths + chunk.b : nullptr};
    if (threshold_ == 0) return mask;
    const int64_t first = chunk.b * args_.heads + chunk.first;
    const bool kept = args_.kept != nullptr;
    uint64_t* const bits = kept ? args_.kept + first * args_.queries.longest * groups_per_row_ * 2 : bits_;
    if (!kept || pass_ == Pass::forward) draw_attention_bits(bits, first, chunk.count, threshold_, args_);
    mask.bits = reinterpret_cast<const uint32_t*>(bits);
    return mask;
  }
  dim3 grid(const Chunk& chunk) const {
    return {static_cast<unsigned>(args_.queries.longest), static_cast<unsigned>(chunk.count)};
  }

  /// c[queries, keys] = alpha * a b^T for each head: a [queries, head_dim], b [keys, head_dim].
  void multiply_rows(const Chunk& chunk, P* c, const Rows<const T>& a, const Rows<const T>& b, double alpha) const {
    batched_matmul({.dtype = dtype_of<T>(),
                    .dtype_c = dtype_of<P>(),
                    .transpose_b = true,
                    .m = args_.queries.longest,
                    .n = args_.keys.longest,
                    .k = args_.head_dim,
                    .a = a.data,
                    .lda = a.ld,
                    .b = b.data,
                    .ldb = b.ld,
                    .c = c,
                    .ldc = args_.keys.longest,
                    .alpha = alpha},
                   {chunk.count, args_.head_dim, args_.head_dim, pairs_});
  }

  /// c = alpha * op(a) b for each head, a [queries, keys]; c has the rows of queries, or of keys if a is transposed.
  void weigh_rows(const Chunk& chunk, const Rows<T>& c, const T* a, bool transpose_a, const Rows<const T>& b,
                  double alpha) const {
    const int64_t queries = args_.queries.longest, keys = args_.keys.longest;
    batched_matmul({.dtype = dtype_of<T>(),
                    .dtype_c = dtype_of<T>(),
                    .transpose_a = transpose_a,
                    .m = transpose_a ? keys : queries,
                    .n = args_.head_dim,
                    .k = transpose_a ? queries : keys,
                    .a = a,
                    .lda = keys,
                    .b = b.data,
                    .ldb = b.ld,
                    .c = c.data,
                    .ldc = c.ld,
                    .alpha = alpha},
                   {chunk.count, pairs_, args_.head_dim, args_.head_dim});
  }

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(args_.head_dim)); }
  int64_t width() const { return args_.heads * args_.head_dim; }

 private:
  /// From the chunk's first head on, in all rows.
  Rows<T> heads_of(const Tensor& tensor, int64_t column, const Chunk& chunk) const {
    return {data_of<T>(tensor) + column + chunk.first * args_.head_dim, tensor.cols()};
  }

  AttentionArgs args_;
  Pass pass_;
  int64_t pairs_, chunk_, groups_per_row_;
  uint32_t threshold_;
  uint64_t* bits_ = nullptr;
};

template <typename T>
void forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  using P = ParameterOf<T>;
  const Attention<T> attention(args, Pass::forward, sizeof(P) + sizeof(T));
  auto* scores = attention.template scratch_matrices<P>();
  auto* probabilities = attention.template scratch_matrices<T>();
  const int64_t key = key_column(kv, args), value = key + attention.width();
  attention.for_each_chunk([&](const Chunk& chunk) {
    attention.multiply_rows(chunk, scores, attention.load(q, 0, chunk, args.queries),
                            attention.load(kv, key, chunk, args.keys), attention.scale());
    launch(softmax_kernel<T, P>, attention.grid(chunk), kRowThreads, probabilities,
           data_of<P>(lse) + attention.row(chunk), scores, attention.mask(chunk));
    const Rows<T> result = attention.room_for(out, 0, chunk, args.queries);
    attention.weigh_rows(chunk, result, probabilities, false, attention.load(kv, value, chunk, args.keys), 1.0);
    attention.store(out, 0, result, chunk, args.queries);
  });
}

template <typename T>
void backward(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
              const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  using P = ParameterOf<T>;
  const Attention<T> attention(args, Pass::backward, 2 * (sizeof(P) + sizeof(T)));
  auto *scores = attention.template scratch_matrices<P>(), *dprobabilities = attention.template scratch_matrices<P>();
  auto *probabilities = attention.template scratch_matrices<T>(), *dscores = attention.template scratch_matrices<T>();
  const int64_t key = key_column(kv, args), value = key + attention.width();
  attention.for_each_chunk([&](const Chunk& chunk) {
    const Rows<const T> queries = attention.load(q, 0, chunk, args.queries);
    const Rows<const T> keys = attention.load(kv, key, chunk, args.keys);
    const Rows<const T> grad = attention.load(dout, 0, chunk, args.queries);
    attention.multiply_rows(chunk, scores, queries, keys, attention.scale());
    attention.multiply_rows(chunk, dprobabilities, grad, attention.load(kv, value, chunk, args.keys), 1.0);
    const GradInput<T, P> in{
        scores, dprobabilities, data_of<P>(lse) + attention.row(chunk), attention.load(out, 0, chunk, args.queries),
        grad,   args.head_dim};
    launch(softmax_grad_kernel<T, P>, attention.grid(chunk), kRowThreads, probabilities, dscores, in,
           attention.mask(chunk));
    const auto write = [&](const Tensor& to, int64_t column, const RowSequences& sequences, const T* weights,
                           bool transpose, const Rows<const T>& rows, double scale) {
      const Rows<T> result = attention.room_for(to, column, chunk, sequences);
      attention.weigh_rows(chunk, result, weights, transpose, rows, scale);
      attention.store(to, column, result, chunk, sequences);
    };
    write(dkv, value, args.keys, probabilities, true, grad, 1.0);
    write(dq, 0, args.queries, dscores, false, keys, attention.scale());
    write(dkv, key, args.keys, dscores, true, queries, attention.scale());
  });
}

}  // namespace

void plain_attention(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv,
                     const AttentionArgs& args) {
  dispatch_float(q.dtype, [&](auto tag) { forward<decltype(tag)>(out, lse, q, kv, args); });
}

void plain_attention_grad(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                          const Tensor& q, const Tensor& kv, const AttentionArgs& args) {
  dispatch_float(q.dtype, [&](auto tag) { backward<decltype(tag)>(dq, dkv, dout, out, lse, q, kv, args); });
}

}  // namespace qn::cuda
