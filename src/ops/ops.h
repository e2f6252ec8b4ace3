// The differentiable ops. Each has its backward beside it in its own .cpp. Shapes: N is the number of positions
// (batch * time), D the model width. Dropout arguments are inactive (p ignored) outside training. Activations have the
// tape's type; biases, norm weights and tables are parameters (tables may have either type), and so are the gradients
// of all of them. Weights of linear maps are given in the tape's type: see cast_to_compute().
#pragma once

#include <cstdint>
#include <span>

#include "ops/norm_limits.h"
#include "ops/tape.h"

namespace qn {

class Int8Weight;

/// Dropout of one call site; `site` tells its masks apart from all others of the pass.
struct Dropout {
  double p = 0.0;
  uint64_t site = 0;
};

/// What comes into a network: host values as activations of this shape, without a gradient. The values must stay until
/// the pass is over.
Var input(Tape& tape, std::span<const float> values, Shape shape);
/// The same in the parameters' type.
Tensor input_values(Tape& tape, std::span<const float> values, Shape shape);

/// y[N, out] = x[N, in] W^T + b. W is [out, in]; b is [out] or undefined.
Var linear(Tape& tape, const Var& x, const Var& weight, const Var& bias);
/// linear() in integers, for evaluation (never while recording): x is quantized to `grid`, see Kernels::matmul_int8.
Var linear_int8(Tape& tape, const Var& x, const Int8Weight& weight, const ActivationGrid& grid, const Var& bias);
/// The same into columns of y from `column` on, as multiply_into().
void multiply_int8_into(Tape& tape, const Tensor& y, int64_t column, const Var& x, const Int8Weight& weight,
                        const ActivationGrid& grid, const Var& bias);
/// y[N, out] = x[N, in] W, W [in, out]: a projection used in the opposite direction (tied adaptive softmax).
Var linear_transposed(Tape& tape, const Var& x, const Var& weight);
/// y[:, column .. column + out) = x W^T + b into memory of the caller's; for passes that record no gradient.
void multiply_into(Tape& tape, const Tensor& y, int64_t column, const Var& x, const Var& weight, const Var& bias);
/// y[N, sum(out_i)] = the linear results of several weights side by side. `biases` is empty or as long as `weights`.
/// With `columns` y has so many, and what is behind the results is not written.
Var linear_concat(Tape& tape, const Var& x, std::span<const Var> weights, std::span<const Var> biases,
                  int64_t columns = 0);

/// Normalises rows of x[N, D], then scales and shifts.
Var layer_norm(Tape& tape, const Var& x, const Var& weight, const Var& bias, double eps = kNormEps);
/// Rows of x[N, D], each divided by its Euclidean norm; a row of zeros stays one.
Var normalize_rows(Tape& tape, const Var& x);
/// Inverted dropout.
Var dropout(Tape& tape, const Var& x, const Dropout& drop);
/// residual + dropout(x + bias). `bias` [D] may be undefined, here and below.
Var residual_dropout(Tape& tape, const Var& residual, const Var& x, const Var& bias, const Dropout& drop);
/// dropout(act(x + bias))
Var activation_dropout(Tape& tape, const Var& x, const Var& bias, Activation kind, const Dropout& drop);

/// scale * table[ids]: [count, dim]; zeros for negative ids. Rows with id == pad_id get no gradient (-1: all do).
Var embedding(Tape& tape, const Var& table, std::span<const int32_t> ids, double scale, int32_t pad_id);
/// Rows of x: [count, D]; zeros for negative ones.
Var select_rows(Tape& tape, const Var& x, std::span<const int32_t> rows);
/// out[rows_b[i]] = scale * parts[b][i]: puts per-band results back in place. Every row must be named exactly once;
/// negative ones name none.
struct RowPart {
  Var value;
  std::span<const int32_t> rows;
};
Var assemble_rows(Tape& tape, int64_t count, int64_t dim, std::span<const RowPart> parts, double scale);
/// Columns [part * D, (part + 1) * D) of x [N, parts * D] as a matrix of their own.
Var select_columns(Tape& tape, const Var& x, int64_t part, int64_t parts);
/// Matrices [N, D] side by side: [N, parts * D]. None may have another use.
Var join_columns(Tape& tape, std::span<const Var> parts);
/// x + table[positions]; gradient to the table (if it wants one) except for row pad_id.
Var add_positions(Tape& tape, const Var& x, const Var& table, std::span<const int32_t> positions, int32_t pad_id);

/// Causal multi-head self-attention; qkv [batch * time, 3 D] -> [batch * time, D].
Var attention(Tape& tape, const Var& qkv, int64_t batch, int64_t time, int64_t heads, bool causal, const Dropout& drop);
/// The same without dropout, for passes that record no gradient: q [batch * time, D] becomes the result, keys and
/// values are kv [batch * time, 2 D].
void attention_in_place(Tape& tape, const Tensor& q, const Tensor& kv, int64_t batch, int64_t time, int64_t heads,
                        bool causal);

/// How many columns logits have in memory for so many classes: more where a GPU's matrix products want rows that begin
/// at whole cache lines. Nothing but zeros is behind the classes, or something that nobody reads.
int64_t logit_columns(const Tape& tape, int64_t classes);
/// Adds the loss of each row, -log p(target) unless labels are smoothed, to losses (f64 [N]); see
/// Kernels::cross_entropy. Logits [N, logit_columns(tape, classes)], or [N, classes]. When recording, their memory
/// becomes their gradient: the caller must not use them afterwards.
void cross_entropy(Tape& tape, const Tensor& losses, const Var& logits, int64_t classes,
                   std::span<const int32_t> targets, std::span<const int32_t> rows, double smoothing = 0.0);
/// The same for one target per row of logits: returns the losses, f64 [N].
Tensor cross_entropy(Tape& tape, const Var& logits, std::span<const int32_t> targets, double smoothing = 0.0);

/// The sum of (y[i, j] - targets[i, j])^2: f64 [1]. `targets` [N, D] is T or P. Not with a loss scale, which is on the
/// device (fp16).
Tensor squared_error(Tape& tape, const Var& y, const Tensor& targets);
/// The same for values of the host, row by row.
Tensor squared_error(Tape& tape, const Var& y, std::span<const float> targets);

/// `weight` in the tape's type: itself, or a copy that shares its gradient slot.
Var cast_to_compute(Tape& tape, const Var& weight);
/// Noise of the product-quantization proxy: a copy of w with random blocks dropped and the rest scaled by 1/(1-p).
/// Straight-through: its gradient is w's own, unmasked and unscaled (paper section 4.2; reference 1.2).
Var block_noise(Tape& tape, const Var& weight, int64_t block, double p, uint64_t id);
/// What random blocks of a weight become while training.
struct BlockReplacement {
  Tensor values;                    ///< see Kernels::replace_blocks, as the next two
  const uint16_t* codes = nullptr;  ///< in the backend's memory, row-major
  int64_t clusters = 0;
  double p = 0.0;      ///< share of the blocks (of the clusters) that are replaced
  double scale = 1.0;  ///< of the others
  uint64_t id = 0;     ///< tells its random numbers apart from all others of the pass
};
/// A copy of w [rows, cols] with random blocks replaced; w itself outside of training. Straight-through: its gradient
/// is w's own, unmasked and unscaled.
Var replace_blocks(Tape& tape, const Var& weight, const BlockReplacement& how);
/// How a weight or an activation is quantized while training.
struct FakeQuantize {
  /// One element, or one per row, of the parameters' type in the backend's memory. They stay as they are until the
  /// backward pass is over.
  Tensor scale, zero_point;
  int bits = 8;
  double p = 1.0;     ///< share that is quantized in training; outside of training everything is
  int64_t block = 1;  ///< adjacent columns that are quantized together
  uint64_t id = 0;    ///< tells its random numbers apart from all others of the pass
  /// The range is that of x itself, so that nothing is farther outside than rounding of the zero point puts it (half a
  /// step): then the gradient need not be masked, and the backward costs nothing.
  bool covers = false;
};
/// Scalar quantization of a share of x; the rest is clamped to the levels' range. Straight-through: the gradient is
/// that of the clamp, zero outside the range (reference 2.4). Unlike there, a quantized value outside becomes the bound
/// and is not reflected about it.
Var fake_quantize(Tape& tape, const Var& x, const FakeQuantize& how);
/// The gradient of y, as it is, also goes to `x` (same shape, parameters' type), which y is not computed from.
void straight_through(Tape& tape, const Var& y, const Var& x);
/// The dense weight of product-quantization codes; gradient to the centroids [K, d] (sum, or mean with counts).
Var pq_weight(Tape& tape, const Var& centroids, const uint16_t* codes, const int64_t* counts, Shape shape);
/// A computed weight with each row times a factor: y[r, :] = scale[r] * weight[r, :]; gradients to both. `scale` [rows]
/// is of the parameters' type. `weight` may have no other use.
Var scale_rows(Tape& tape, const Var& weight, const Var& scale);

}  // namespace qn
