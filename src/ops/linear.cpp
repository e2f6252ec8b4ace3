#include <algorithm>
#include <array>

#include "ops/ops.h"

namespace qn {
namespace {

struct Part {
  Var weight, bias;
  int64_t column;
};

/// Weights that lie one behind another in memory are one matrix: calls f(weight, column) for each run of them.
template <typename F>
void for_each_matrix(std::span<const Part> parts, F f) {
  for (size_t i = 0; i < parts.size();) {
    Tensor matrix = parts[i].weight.value;
    const int64_t column = parts[i].column;
    for (++i; i < parts.size(); ++i) {
      const Tensor& next = parts[i].weight.value;
      if (next.data != static_cast<std::byte*>(matrix.data) + matrix.bytes() || next.dtype != matrix.dtype) break;
      matrix.shape = {matrix.rows() + next.rows(), matrix.cols()};
    }
    f(matrix, column);
  }
}

void multiply_by(Tape& tape, const Tensor& y, const Var& x, const Tensor& w, int64_t column) {
  const auto bytes = static_cast<size_t>(column) * size_of(y.dtype);
  tape.k.matmul({.dtype = y.dtype,
                 .dtype_c = y.dtype,
                 .transpose_a = false,
                 .transpose_b = true,
                 .m = x.value.rows(),
                 .n = w.rows(),
                 .k = w.cols(),
                 .a = x.value.data,
                 .lda = x.value.cols(),
                 .b = w.data,
                 .ldb = w.cols(),
                 .c = static_cast<std::byte*>(y.data) + bytes,
                 .ldc = y.cols()});
}

void forward_parts(Tape& tape, const Tensor& y, const Var& x, std::span<const Part> parts) {
  for_each_matrix(parts, [&](const Tensor& w, int64_t column) { multiply_by(tape, y, x, w, column); });
  for (const Part& part : parts)
    if (part.bias.value.defined()) tape.k.add_bias(y, part.column, part.bias.value);
}

/// Of the elements from a column on.
const void* from_column(const Tensor& t, int64_t column) {
  return static_cast<std::byte*>(t.data) + static_cast<size_t>(column) * size_of(t.dtype);
}

void add_input_grad(Tape& tape, const Tensor& dy, const Var& x, const Tensor& w, int64_t column) {
  const Tape::Slot dx = tape.slot(x);
  tape.k.matmul({.dtype = dy.dtype,
                 .dtype_c = dx.grad.dtype,
                 .m = x.value.rows(),
                 .n = w.cols(),
                 .k = w.rows(),
                 .a = from_column(dy, column),
                 .lda = dy.cols(),
                 .b = w.data,
                 .ldb = w.cols(),
                 .c = dx.grad.data,
                 .ldc = w.cols(),
                 .beta = dx.beta});
}

void add_parameter_grads(Tape& tape, const Tensor& dy, const Var& x, const Part& part) {
  const int64_t n = x.value.rows(), in = part.weight.value.cols(), out = part.weight.value.rows();
  if (part.weight.slot != nullptr) {
    const Tape::Slot dw = tape.slot(part.weight);
    tape.k.matmul({.dtype = dy.dtype,
                   .dtype_c = dw.grad.dtype,
                   .transpose_a = true,
                   .m = out,
                   .n = in,
                   .k = n,
                   .a = from_column(dy, part.column),
                   .lda = dy.cols(),
                   .b = x.value.data,
                   .ldb = in,
                   .c = dw.grad.data,
                   .ldc = in,
                   .beta = dw.beta});
  }
  if (part.bias.slot != nullptr) {
    const Tape::Slot db = tape.slot(part.bias);
    tape.k.bias_grad(db.grad, dy, part.column, db.beta);
  }
}

}  // namespace

void multiply_into(Tape& tape, const Tensor& y, int64_t column, const Var& x, const Var& weight, const Var& bias) {
  QN_ASSERT(!tape.recording() && weight.value.cols() == x.value.cols());
  const Part part{weight, bias, column};
  forward_parts(tape, y, x, {&part, 1});
}

Var linear_concat(Tape& tape, const Var& x, std::span<const Var> weights, std::span<const Var> biases,
                  int64_t columns) {
  constexpr size_t kMaxParts = 4;
  QN_ASSERT(weights.size() <= kMaxParts && (biases.empty() || biases.size() == weights.size()));
  std::array<Part, kMaxParts> parts;
  int64_t width = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    QN_ASSERT(weights[i].value.cols() == x.value.cols(), "weight {} on input {}", weights[i].value.shape.to_string(),
              x.value.shape.to_string());
    parts[i] = {weights[i], biases.empty() ? Var{} : biases[i], width};
    width += weights[i].value.rows();
  }
  const Var y = tape.result({x.value.rows(), std::max(width, columns)});
  forward_parts(tape, y.value, x, {parts.data(), weights.size()});
  tape.on_backward([&tape, x, y, parts, count = weights.size()] {
    if (!Tape::has_grad(y)) return;
    const std::span<const Part> all(parts.data(), count);
    const Tensor& dy = y.slot->grad;
    if (x.slot != nullptr)
      for_each_matrix(all, [&](const Tensor& w, int64_t column) { add_input_grad(tape, dy, x, w, column); });
    for (const Part& part : all) add_parameter_grads(tape, dy, x, part);
  });
  return y;
}

Var linear(Tape& tape, const Var& x, const Var& weight, const Var& bias) {
  return linear_concat(tape, x, {&weight, 1}, {&bias, 1});
}

Var linear_transposed(Tape& tape, const Var& x, const Var& weight) {
  const int64_t n = x.value.rows(), in = weight.value.rows(), out = weight.value.cols();
  QN_ASSERT(x.value.cols() == in);
  const Var y = tape.result({n, out});
  const DType dtype = y.value.dtype;
  tape.k.matmul({.dtype = dtype,
                 .dtype_c = dtype,
                 .m = n,
                 .n = out,
                 .k = in,
                 .a = x.value.data,
                 .lda = in,
                 .b = weight.value.data,
                 .ldb = out,
                 .c = y.value.data,
                 .ldc = out});
  tape.on_backward([&tape, x, y, weight, n, in, out, dtype] {
    if (!Tape::has_grad(y)) return;
    const Tensor& dy = y.slot->grad;
    if (x.slot != nullptr) {
      const Tape::Slot dx = tape.slot(x);
      tape.k.matmul({.dtype = dtype,
                     .dtype_c = dx.grad.dtype,
                     .transpose_b = true,
                     .m = n,
                     .n = in,
                     .k = out,
                     .a = dy.data,
                     .lda = out,
                     .b = weight.value.data,
                     .ldb = out,
                     .c = dx.grad.data,
                     .ldc = in,
                     .beta = dx.beta});
    }
    if (weight.slot != nullptr) {
      const Tape::Slot dw = tape.slot(weight);
      tape.k.matmul({.dtype = dtype,
                     .dtype_c = dw.grad.dtype,
                     .transpose_a = true,
                     .m = in,
                     .n = out,
                     .k = n,
                     .a = x.value.data,
                     .lda = in,
                     .b = dy.data,
                     .ldb = out,
                     .c = dw.grad.data,
                     .ldc = out,
                     .beta = dw.beta});
    }
  });
  return y;
}

}  // namespace qn
