// The kernels that a backend provides. Ops check shapes and own the maths of the chain rule; kernels move data.
// `beta` is 0 (overwrite) or 1 (accumulate): a backward writes straight into the gradient slot.
//
// Element types. T is the type of activations and of the operands of matrix products: f32, bf16, f64 (gradient checks,
// reference) and, on GPUs only, f16. P = parameter_type(T) is the type of parameters, biases, norm weights, statistics
// (mean, rstd, lse), parameter gradients, optimizer state and centroids. Kernels load T, compute and accumulate in P,
// and round once when they store. Each entry below says which of its tensors are T and which P; "T or P" is the
// caller's choice per tensor. Losses are f64.
#pragma once

#include <cstdint>
#include <optional>

#include "core/enum_names.h"
#include "core/random.h"
#include "core/tensor.h"
#include "ops/code_matrix.h"
#include "ops/conv_shape.h"
#include "ops/update_state.h"

namespace qn {

/// The type P that goes with activations of type T.
inline DType parameter_type(DType activations) { return activations == DType::f64 ? DType::f64 : DType::f32; }

/// C[m, n] = beta * C + alpha * op(A) op(B), row-major with leading dimensions. A is [m, k] (or [k, m] when
/// transposed). Accumulates in P; with beta 1, C is read in its own type.
struct MatmulArgs {
  DType dtype = DType::f32;    ///< T: of A and B
  DType dtype_c = DType::f32;  ///< of C: T for activations, P for gradients of weights
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  double alpha = 1.0;
  int beta = 0;
};

/// Sequences in the rows of a matrix: number b is lengths[b] rows from row begins[b] on. Both arrays are in the
/// backend's memory; without them all sequences have the same length and lie one behind another.
struct RowSequences {
  int64_t longest = 0;
  const int32_t *begins = nullptr, *lengths = nullptr;
};

/// Multi-head attention: the queries of sequence b see its keys; heads are adjacent columns. Rows of no sequence are
/// neither read nor written. Where a sequence has no queries, the gradient of its keys is written as zeros or not at
/// all.
struct AttentionArgs {
  int64_t batch = 0;  ///< sequences
  RowSequences queries, keys;
  int64_t heads = 0, head_dim = 0;
  bool causal = true;    ///< query i sees keys 0 .. i only; sequences have as many keys as queries
  double dropout = 0.0;  ///< on the probabilities; 0 outside training
  RandomKey key;      ///< of the dropout mask; element ((b * heads + h) * longest query + q) * pad128(longest key) + k
  int64_t pairs = 0;  ///< of a query and a key that it sees, in all sequences: for who counts work
  /// Room for attention_keep_words() of keep bits, in which attention_grad finds those that attention has drawn; null:
  /// it draws them anew. The CPU always does.
  uint64_t* kept = nullptr;
};

/// Of all heads' probabilities; kernels may read some rows behind the last one.
inline int64_t attention_keep_words(const AttentionArgs& args) {
  constexpr int64_t kRowsBehind = 128;
  return (args.batch * args.heads * args.queries.longest + kRowsBehind) * ((args.keys.longest + 127) / 128) * 2;
}

/// `batch` sequences of one length that see themselves.
inline AttentionArgs self_attention(int64_t batch, int64_t time, int64_t heads, int64_t head_dim, bool causal) {
  return {.batch = batch,
          .queries = {.longest = time},
          .keys = {.longest = time},
          .heads = heads,
          .head_dim = head_dim,
          .causal = causal,
          .key = {},
          .pairs = batch * (causal ? time * (time + 1) / 2 : time * time)};
}

/// A per-tensor grid for activations: x becomes the code clamp(round(x / scale + zero_point), 0, 2^bits - 1), ties to
/// even, computed in P; not-a-number becomes 0. Code c stands for scale * (c - zero_point).
struct ActivationGrid {
  int bits = 8;                       ///< 1 to 8
  const float* scale = nullptr;       ///< one number, in the backend's memory
  const float* zero_point = nullptr;  ///< one whole number, in the backend's memory
};

/// y[:, column + j] = sum_l x[:, l] w[j, l] for j < n, both operands on their grids. The sum over codes is exact, in
/// 32-bit integers; taking off the zero points and scaling is done in double and rounded to T.
struct Int8MatmulArgs {
  Tensor x;  ///< T [m, k], k at most kMostInt8Columns; quantized by the kernel
  ActivationGrid grid;
  const void* weight = nullptr;        ///< what pack_int8 made of codes [n, k]
  const float* scales = nullptr;       ///< of the weight: one, or one per row; code c stands for scale * (c - zero)
  const float* zero_points = nullptr;  ///< whole numbers, as many as scales
  bool grid_per_row = false;           ///< whether there are n of them
  int64_t n = 0;
  Tensor y;  ///< T [m, at least column + n]
  int64_t column = 0;
};

enum class Activation { relu, gelu, tanh, gelu_tanh, relu6, silu, sigmoid };
template <>
struct EnumNames<Activation> {
  static constexpr EnumName<Activation> kAll[] = {{Activation::relu, "relu"},      {Activation::gelu, "gelu"},
                                                  {Activation::tanh, "tanh"},      {Activation::gelu_tanh, "gelu_tanh"},
                                                  {Activation::relu6, "relu6"},    {Activation::silu, "silu"},
                                                  {Activation::sigmoid, "sigmoid"}};
};

/// What may be computed on the way from a convolution or a normalisation to its result; relu, relu6, silu or nothing.
using FusedActivation = std::optional<Activation>;

/// What becomes of a convolution's sums before they are stored; by itself nothing. `scale` and `shift` [out] are P,
/// `residual` like y, T. Where something is undefined it is left out.
struct ConvEpilogue {
  Tensor scale = {}, shift = {};
  FusedActivation activation = {};
  Tensor residual = {};
};

/// One parameter range of a flat optimizer step.
struct NagStep {
  double lr, lr_previous, momentum, weight_decay;
};
/// Of this rate to that of the last update; `kept_lr` as the decision has it. One rule for all backends.
QN_HOST_DEVICE inline double lr_ratio(const NagStep& step, double kept_lr) {
  const double previous = kept_lr > 0.0 ? kept_lr : step.lr_previous;
  return previous > 0.0 ? step.lr / previous : step.lr;
}
struct AdamStep {
  double lr, beta1, beta2, eps, weight_decay;
  int64_t step;  ///< 1 for the first update; skipped ones, which the decision counts, are taken off
};
/// `decoupled`: weight decay shrinks parameters by lr * weight_decay; else it adds weight_decay * p to the gradient.
struct SgdStep {
  double lr, momentum, dampening, weight_decay;
  bool decoupled, nesterov;
  int64_t step;  ///< as above: the first one fills the buffer
};
/// `alpha` is the decay of the mean square; with `lr_in_momentum` the buffer holds steps, else what is multiplied by
/// lr.
struct RmspropStep {
  double lr, alpha, momentum, eps, weight_decay;
  bool decoupled, lr_in_momentum;
};

/// Recording what kernels a pass queues, to queue them again in one call (CUDA graphs). What is recorded keeps its
/// addresses and shapes.
struct GraphSupport {
  /// From here on, kernels that this thread calls are recorded and not run. Uploads are left out: what they bring has
  /// to be in place when the graph is launched.
  void (*begin)();
  /// Ends the recording.
  void* (*end)();
  /// Ends a recording that went wrong, in the course of which anything may have failed. Never throws.
  void (*abandon)();
  /// Queues the recorded kernels. Random keys get these numbers in place of those they were recorded with.
  void (*launch)(void* graph, uint32_t update, uint32_t micro_batch);
  void (*release)(void* graph);
};

struct Kernels {
  const char* backend;
  /// Where every tensor, bit, index and code that the kernels are given lives.
  const Memory* memory;
  /// Host memory that start_download() writes to, and that copies from the backend reach fastest. May hold
  /// anything at first.
  const Memory* transfer;
  const GraphSupport* graphs;  ///< null where there is none
  /// Whether the three kernels for matrices of codes are there. Where they are not, who loads codes decodes them.
  bool from_codes;

  /// Copies host memory to the backend's. The host memory may be reused as soon as this returns; kernels called later
  /// see the copy.
  void (*upload)(void* to, const void* from_host, size_t bytes);
  /// Copies the backend's memory to the host's, after everything called before.
  void (*download)(void* to_host, const void* from, size_t bytes);
  /// As download(), without waiting: the copy is there after wait(mark()). `to` is in the memory `transfer`.
  void (*start_download)(void* to, const void* from, size_t bytes);
  /// A point in the sequence of calls of this thread, for wait(): marks count up.
  int64_t (*mark)();
  /// Returns when everything called before the mark was set is done.
  void (*wait)(int64_t mark);

  /// Here and in axpy and masked_axpy every tensor is T or P; copy is the cast.
  void (*fill)(const Tensor& x, double value);
  void (*copy)(const Tensor& y, const Tensor& x);
  /// y = beta * y + scale * x
  void (*axpy)(const Tensor& y, const Tensor& x, double scale, int beta);
  void (*matmul)(const MatmulArgs& args);
  /// y[r, column + c] += bias[c] for c < bias.elements(). y T, bias P.
  void (*add_bias)(const Tensor& y, int64_t column, const Tensor& bias);
  /// dbias[c] = beta * dbias[c] + sum_r dy[r, column + c]. dy T, dbias P.
  void (*bias_grad)(const Tensor& dbias, const Tensor& dy, int64_t column, int beta);

  /// Statistics mean, rstd are [rows]. x, y and their gradients T; weight, bias, their gradients and statistics P.
  void (*layer_norm)(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, double eps);
  void (*layer_norm_grad)(const Tensor& dx, int beta_x, const Tensor& dweight, int beta_w, const Tensor& dbias,
                          int beta_b, const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                          const Tensor& weight);
  /// y[r, :] = inverse[r] * x[r, :] with inverse[r] = 1 / max(|x[r, :]|, 1e-12). x, y and their gradients T; inverse P.
  void (*normalize_rows)(const Tensor& y, const Tensor& inverse, const Tensor& x);
  /// dx = beta * dx + inverse * (dy - y * <y, dy>), row by row
  void (*normalize_rows_grad)(const Tensor& dx, int beta, const Tensor& dy, const Tensor& y, const Tensor& inverse);

  /// Keep bits of inverted dropout for elements [0, n): bit i is 1 with probability 1 - p (to 2^-16). `bits` holds
  /// keep_words(n) 64-bit words.
  void (*keep_bits)(uint64_t* bits, int64_t n, double p, const RandomKey& key);
  /// y = beta * y + scale * x where the bit is set; without bits, everywhere.
  void (*masked_axpy)(const Tensor& y, const Tensor& x, const uint64_t* bits, double scale, int beta);
  /// y = residual + scale * (x + bias) where the bit is set, else residual. `bias` is [cols] or undefined, here and
  /// below: a linear map's bias costs no pass of its own. x, y, residual and their gradients T; bias P.
  void (*residual_add)(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias,
                       const uint64_t* bits, double scale);
  /// y = scale * act(x + bias) where the bit is set, else 0.
  void (*activation)(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                     double scale);
  /// dx = scale * act'(x + bias) * dy where the bit is set, else 0. dx may be dy.
  void (*activation_grad)(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                          const uint64_t* bits, double scale);

  // Images are [batch, height, width, channels]; as matrices a row is a pixel, a column a channel.

  /// y = act(scale * (x (*) w) + shift) + residual with the sizes of `shape`; see ConvEpilogue. x, y and w T; w is
  /// [out, in / groups, kernel_h, kernel_w].
  void (*conv2d)(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& shape,
                 const ConvEpilogue& epilogue);
  /// dx = beta * dx + the gradient of x for the gradient dy of x (*) w. All T.
  void (*conv2d_input_grad)(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& shape, int beta);
  /// dw = beta * dw + the gradient of w. dw P; x, dy T.
  void (*conv2d_weight_grad)(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& shape, int beta);
  /// y[b, c] = mean over pixels of x[b, :, :, c]. y [batch, channels] and x T.
  void (*average_pool)(const Tensor& y, const Tensor& x);
  /// dx[b, h, w, c] = beta * dx[b, h, w, c] + dy[b, c] / pixels
  void (*average_pool_grad)(const Tensor& dx, const Tensor& dy, int beta);
  /// y[b, h, w, c] = x[b, h, w, c] * s[b, c]. All T, here and below.
  void (*scale_channels)(const Tensor& y, const Tensor& x, const Tensor& s);
  /// dx = beta_x * dx + dy * s and ds[b, c] = beta_s * ds[b, c] + sum over pixels of dy * x. dx may be dy.
  void (*scale_channels_grad)(const Tensor& dx, int beta_x, const Tensor& ds, int beta_s, const Tensor& dy,
                              const Tensor& x, const Tensor& s);
  /// y[b, ...] = residual[b, ...] + scale * x[b, ...] where bit b is set (without bits: everywhere), else residual,
  /// which counts as zeros where it is undefined. y may be residual or x. All T.
  void (*scale_samples)(const Tensor& y, const Tensor& residual, const Tensor& x, const uint64_t* bits, double scale);

  /// Sums over the rows of x, f64 [2 C + 1]: of the C columns, of their squares, and the number of rows.
  void (*batch_norm_sums)(const Tensor& sums, const Tensor& x);
  /// stats [2, C] = mean and 1 / sqrt(variance + eps) of these sums, biased; batch_sums [2, C] (where defined) += mean
  /// and unbiased variance. Without sums, of the running averages mean [C] and var [C]. All but sums P.
  void (*batch_norm_statistics)(const Tensor& stats, const Tensor& batch_sums, const Tensor& sums, const Tensor& mean,
                                const Tensor& var, double eps);
  /// y = act(normalised x * weight + bias). x, y T; stats, weight [C] and bias [C] P, here and below.
  void (*batch_norm)(const Tensor& y, const Tensor& x, const Tensor& stats, const Tensor& weight, const Tensor& bias,
                     FusedActivation act);
  /// With g = dy * act'(...): sums [2 C + 1] (f64) = the sums over rows of g and of g * normalised x, and the number of
  /// rows; dweight = beta_w * dweight + the second, dbias = beta_b * dbias + the first. Gradients of parameters P.
  void (*batch_norm_grad_sums)(const Tensor& sums, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                               const Tensor& dy, const Tensor& x, const Tensor& stats, const Tensor& weight,
                               const Tensor& bias, FusedActivation act);
  /// dx = beta * dx + weight * rstd * (g - mean of g - normalised x * mean of g * normalised x), the means being those
  /// of `sums`; without them, of running averages, weight * rstd * g. dx may be dy.
  void (*batch_norm_grad)(const Tensor& dx, int beta, const Tensor& dy, const Tensor& x, const Tensor& stats,
                          const Tensor& weight, const Tensor& bias, const Tensor& sums, FusedActivation act);
  /// scale [C] = weight / sqrt(var + eps), shift [C] = bias - mean * scale: a normalisation by running averages, for
  /// ConvEpilogue. All P.
  void (*batch_norm_fold)(const Tensor& scale, const Tensor& shift, const Tensor& weight, const Tensor& bias,
                          const Tensor& mean, const Tensor& var, double eps);

  /// y[i, :] = scale * table[ids[i], :]; zeros where the id is negative. y T; table T or P: token tables are read from
  /// the master.
  void (*gather_rows)(const Tensor& y, const Tensor& table, const int32_t* ids, double scale);
  /// table[ids[i], :] += scale * x[i, :] in the order of i; rows with id == skip_id or a negative id are left
  /// out.
  /// x T; table (a gradient slot) P or T.
  void (*scatter_add_rows)(const Tensor& table, const Tensor& x, const int32_t* ids, double scale, int32_t skip_id);
  /// y[rows[i], :] = scale * x[i, :]; nothing where the row is negative. Both T, or both f64 (losses).
  void (*scatter_rows)(const Tensor& y, const Tensor& x, const int32_t* rows, double scale);

  /// out [rows, width = heads * head_dim]; lse [batch * heads * longest query] is the log of the softmax denominator,
  /// kept for the backward. Queries are the first `width` columns of q, keys and values the last 2 width columns of kv,
  /// so that both may be one matrix of q | k | v; `out` may be a q of `width` columns. Matrices and their gradients T;
  /// lse P.
  void (*attention)(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& kv, const AttentionArgs& args);
  /// dq, like q, and dkv, like kv, are overwritten. `out` and `lse` are the forward's.
  void (*attention_grad)(const Tensor& dq, const Tensor& dkv, const Tensor& dout, const Tensor& out, const Tensor& lse,
                         const Tensor& q, const Tensor& kv, const AttentionArgs& args);

  /// losses[rows ? rows[i] : i] += -sum over c of w(c) log softmax(logits[i, 0 .. classes))[c] (f64); rows with target
  /// -1 add nothing. w(c) is 1 - smoothing for the target, and smoothing / (classes - 1) for every other class (label
  /// smoothing as in fairseq). With `write_grad` the logits (T) are overwritten with the gradient of the sum of these
  /// losses, times *grad_scale (in the backend's memory; null: 1), and what is behind the classes with zeros.
  void (*cross_entropy)(const Tensor& losses, const Tensor& logits, int64_t classes, const int32_t* targets,
                        const int32_t* rows, double smoothing, bool write_grad, const double* grad_scale);
  /// y = log softmax of the first columns of x, as many as y has, by rows. x T; y T or P.
  void (*log_softmax)(const Tensor& y, const Tensor& x);

  /// y = scale * w with blocks of `block` adjacent columns dropped: block b (row-major) is dropped with probability p.
  /// w P; y T or P.
  void (*block_noise)(const Tensor& y, const Tensor& w, int64_t block, double p, const RandomKey& key);
  /// A share p of the blocks of d adjacent columns becomes something else, the others are scale * w. `values` is [K,
  /// d]: block b (row-major) becomes row codes[b]; or [1, d]: every block becomes that row, and `codes` may be null if
  /// `clusters` is 0. With `clusters` = C > 0, which codes are below, all blocks of a code share their fate: bit
  /// codes[b] of C keep_bits(p, key); else it is bit b of as many bits as blocks. With p = 1 every block is replaced,
  /// and no random numbers are drawn. w and values P; y T or P.
  void (*replace_blocks)(const Tensor& y, const Tensor& w, const Tensor& values, const uint16_t* codes,
                         int64_t clusters, double p, double scale, const RandomKey& key);
  /// Scalar quantization Q(x) (ops/uniform_grid.h) to `bits` bits; scale and zero_point hold one element, or one per
  /// row of x. y = Q(x) in a share p of the blocks of `block` adjacent columns, in the others x clamped to the levels'
  /// range: block b (row-major) is clean where bit b of keep_bits(p, key) is set. With p = 1 everything is quantized,
  /// with p = 0 nothing, and no random numbers are drawn. y and x T or P; scale and zero_point P, here and below.
  void (*fake_quantize)(const Tensor& y, const Tensor& x, const Tensor& scale, const Tensor& zero_point, int bits,
                        double p, int64_t block, const RandomKey& key);
  /// dx = beta * dx + (dy where x lies within the levels' range, else 0). dx may be dy. dx and dy have one type, T or
  /// P; x T or P.
  void (*fake_quantize_grad)(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& scale,
                             const Tensor& zero_point, int bits, int beta);
  /// range [rows, 2] = smallest and largest value of each row of x, or range [1, 2] = of all of x; with `combine`, of
  /// these and of what range holds. A NaN makes both bounds NaN; without elements they are +-infinity, the wrong way
  /// round. x T or P; range P.
  void (*value_range)(const Tensor& range, const Tensor& x, bool combine);
  /// scale [n], zero_point [n] of the grids for range [n, 2]; see grid_of_range(). All P.
  void (*range_to_grid)(const Tensor& scale, const Tensor& zero_point, const Tensor& range, int bits, bool symmetric);
  /// w[r, j*d + t] = centroids[codes[j*rows + r], t]. centroids P; w T or P.
  void (*pq_decode)(const Tensor& w, const Tensor& centroids, const uint16_t* codes);
  /// Centroid gradient: sum over the blocks of a centroid, or their mean when counts is given.
  /// dcentroids P; dw T or P.
  void (*pq_centroid_grad)(const Tensor& dcentroids, const Tensor& dw, const uint16_t* codes, const int64_t* counts,
                           int beta);

  /// y[r, :] = beta * y[r, :] + scale[r] * x[r, :]. y may be x. y and x T or P; scale [rows] P.
  void (*scale_rows)(const Tensor& y, const Tensor& x, const Tensor& scale, int beta);
  /// dots[r] = beta * dots[r] + x[r, :] . y[r, :], summed in double in an order that depends on the number of columns
  /// only. dots [rows] P; x and y T or P.
  void (*row_dots)(const Tensor& dots, const Tensor& x, const Tensor& y, int beta);

  /// *total += the sum of x (f64), in order. Here and below, pointers to doubles and to states point into the backend's
  /// memory.
  void (*add_sum)(double* total, const Tensor& x);
  /// *result = sum of squares in double, in an order that does not depend on the number of threads. x P, here and
  /// below.
  void (*sum_of_squares)(double* result, const Tensor& x);
  /// See ops/update_state.h.
  void (*decide_update)(UpdateState* state, const UpdateRule& rule);
  void (*nag_step)(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep& step,
                   const StepDecision* decision);
  void (*adam_step)(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep& step,
                    const StepDecision* decision);
  /// Here and below, `momentum` is undefined where there is none. See ops/optimizer_rules.h.
  void (*sgd_step)(const Tensor& p, const Tensor& momentum, const Tensor& g, const SgdStep& step,
                   const StepDecision* decision);
  void (*rmsprop_step)(const Tensor& p, const Tensor& square, const Tensor& momentum, const Tensor& g,
                       const RmspropStep& step, const StepDecision* decision);

  /// Lays out codes (u8 [n, k], of any number of bits) for matmul_int8 of this backend on this machine. `packed` holds
  /// packed_int8_bytes(n, k) bytes.
  void (*pack_int8)(void* packed, const Tensor& codes);
  /// Matrix product of quantized activations and weights, for evaluation.
  void (*matmul_int8)(const Int8MatmulArgs& args);

  /// Product with a matrix of codes, for evaluation: the result of a product with the decoded matrix but for the order
  /// and the rounding of its sums.
  void (*matmul_codes)(const CodeMatmulArgs& args);
  /// y[r, :] = scale * row ids[r] of the matrix; zeros for negative ids. y T.
  void (*lookup_codes)(const Tensor& y, const CodeMatrix& table, const int32_t* ids, double scale);
  /// w [rows, cols] = the matrix itself. w T or P.
  void (*decode_codes)(const Tensor& w, const CodeMatrix& codes);
};

/// Words that keep_bits fills for n elements (whole groups of 128 bits).
inline int64_t keep_words(int64_t n) { return (n + 127) / 128 * 2; }

/// More columns than this could overflow the sums of matmul_int8.
constexpr int64_t kMostInt8Columns = 65536;

/// Sizes of a packed weight [n, k]: whole tiles of every instruction set and device.
inline int64_t padded_int8_rows(int64_t n) { return (n + 31) / 32 * 32; }
inline int64_t padded_int8_columns(int64_t k) { return (k + 15) / 16 * 16; }
/// Bytes that pack_int8 fills: a byte per padded weight, then for each padded row the sum of its codes less 128 (i32).
inline int64_t packed_int8_bytes(int64_t n, int64_t k) {
  return padded_int8_rows(n) * (padded_int8_columns(k) + static_cast<int64_t>(sizeof(int32_t)));
}

/// The sums at the end of a packed weight [n, k].
inline const int32_t* packed_int8_sums(const void* packed, int64_t n, int64_t k) {
  const auto* codes = static_cast<const int8_t*>(packed);
  return reinterpret_cast<const int32_t*>(codes + padded_int8_rows(n) * padded_int8_columns(k));
}

/// The CPU backend; always there.
const Kernels& cpu_kernels();

}  // namespace qn
