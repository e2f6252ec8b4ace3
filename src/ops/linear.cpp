#include <array>

#include "ops/ops.h"

namespace qn {
namespace {

struct Part {
  Var weight, bias;
  int64_t column;
};

void forward_part(Tape& tape, const Tensor& y, const Var& x, const Part& part) {
  const Tensor& w = part.weight.value;
  const auto bytes = static_cast<size_t>(part.column) * size_of(y.dtype);
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
  if (part.bias.value.defined()) tape.k.add_bias(y, part.column, part.bias.value);
}

void backward_part(Tape& tape, const Var& y, const Var& x, const Part& part) {
  const Tensor& dy = y.slot->grad;
  const Tensor& w = part.weight.value;
  const auto* dy_data = static_cast<std::byte*>(dy.data) + static_cast<size_t>(part.column) * size_of(dy.dtype);
  const int64_t n = x.value.rows(), in = w.cols(), out = w.rows();
  if (x.slot != nullptr) {
    const Tape::Slot dx = tape.slot(x);
    tape.k.matmul({.dtype = dy.dtype,
                   .dtype_c = dx.grad.dtype,
                   .m = n,
                   .n = in,
                   .k = out,
                   .a = dy_data,
                   .lda = dy.cols(),
                   .b = w.data,
                   .ldb = in,
                   .c = dx.grad.data,
                   .ldc = in,
                   .beta = dx.beta});
  }
  if (part.weight.slot != nullptr) {
    const Tape::Slot dw = tape.slot(part.weight);
    tape.k.matmul({.dtype = dy.dtype,
                   .dtype_c = dw.grad.dtype,
                   .transpose_a = true,
                   .m = out,
                   .n = in,
                   .k = n,
                   .a = dy_data,
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
  forward_part(tape, y, x, {weight, bias, column});
}

Var linear_concat(Tape& tape, const Var& x, std::span<const Var> weights, std::span<const Var> biases) {
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
  const Var y = tape.result({x.value.rows(), width});
  for (size_t i = 0; i < weights.size(); ++i) forward_part(tape, y.value, x, parts[i]);
  tape.on_backward([&tape, x, y, parts, count = weights.size()] {
    if (!Tape::has_grad(y)) return;
    for (size_t i = 0; i < count; ++i) backward_part(tape, y, x, parts[i]);
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
