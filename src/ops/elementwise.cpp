// Normalisation, dropout, residual sums and activations.
#include "ops/gradient.h"

namespace qn {
namespace {

/// gradient of x += the masked gradient of y
void add_masked_grad(Tape& tape, const Var& x, const Var& y, const DropMask& mask) {
  if (x.slot == nullptr) return;
  const Tape::Slot dx = tape.slot(x);
  tape.k.masked_axpy(dx.grad, y.slot->grad, mask.bits, mask.scale, dx.beta);
}

/// gradient of a bias += the gradient of what it was added to, summed over rows
void add_bias_grad(Tape& tape, const Var& bias, const Tensor& grad) {
  if (bias.slot == nullptr) return;
  const Tape::Slot db = tape.slot(bias);
  tape.k.bias_grad(db.grad, grad, 0, db.beta);
}

}  // namespace

Var layer_norm(Tape& tape, const Var& x, const Var& weight, const Var& bias, double eps) {
  const int64_t n = x.value.rows();
  const Var y = tape.result({n, x.value.cols()});
  const Tensor mean = tape.parameter_tensor({n}), rstd = tape.parameter_tensor({n});
  tape.k.layer_norm(y.value, mean, rstd, x.value, weight.value, bias.value, eps);
  tape.on_backward([&tape, x, y, weight, bias, mean, rstd] {
    if (!Tape::has_grad(y)) return;
    // The kernel makes all three together: what comes from outside of the network gets a gradient that nobody reads.
    const Tape::Slot dx = x.slot != nullptr ? tape.slot(x) : Tape::Slot{tape.tensor(x.value.shape), 0};
    const Tape::Slot dw = tape.slot(weight), db = tape.slot(bias);
    tape.k.layer_norm_grad(dx.grad, dx.beta, dw.grad, dw.beta, db.grad, db.beta, y.slot->grad, x.value, mean, rstd,
                           weight.value);
  });
  return y;
}

Var normalize_rows(Tape& tape, const Var& x) {
  const Var y = tape.result(x.value.shape);
  const Tensor inverse = tape.parameter_tensor({x.value.rows()});
  tape.k.normalize_rows(y.value, inverse, x.value);
  tape.on_backward([&tape, x, y, inverse] {
    if (!Tape::has_grad(y) || x.slot == nullptr) return;
    const Tape::Slot dx = tape.slot(x);
    tape.k.normalize_rows_grad(dx.grad, dx.beta, y.slot->grad, y.value, inverse);
  });
  return y;
}

Var dropout(Tape& tape, const Var& x, const Dropout& drop) {
  const DropMask mask = draw_mask(tape, x.value.elements(), drop);
  if (mask.bits == nullptr) return x;
  const Var y = tape.result(x.value.shape);
  tape.k.masked_axpy(y.value, x.value, mask.bits, mask.scale, 0);
  tape.on_backward([&tape, x, y, mask] {
    if (Tape::has_grad(y)) add_masked_grad(tape, x, y, mask);
  });
  return y;
}

Var residual_dropout(Tape& tape, const Var& residual, const Var& x, const Var& bias, const Dropout& drop) {
  QN_ASSERT(residual.value.shape == x.value.shape);
  const DropMask mask = draw_mask(tape, x.value.elements(), drop);
  const Var y = tape.result(x.value.shape);
  tape.k.residual_add(y.value, residual.value, x.value, bias.value, mask.bits, mask.scale);
  tape.on_backward([&tape, residual, x, bias, y, mask] {
    if (!Tape::has_grad(y)) return;
    if (bias.slot != nullptr && Tape::has_grad(x)) {  // x has more uses: its gradient is not the bias's
      const Tensor own = tape.tensor(y.value.shape);
      tape.k.masked_axpy(own, y.slot->grad, mask.bits, mask.scale, 0);
      add_bias_grad(tape, bias, own);
      add_masked_grad(tape, x, y, mask);
    } else {
      add_masked_grad(tape, x, y, mask);
      if (bias.slot != nullptr) add_bias_grad(tape, bias, x.slot->grad);
    }
    pass_grad_on(tape, residual, y);
  });
  return y;
}

Var activation_dropout(Tape& tape, const Var& x, const Var& bias, Activation kind, const Dropout& drop) {
  const DropMask mask = draw_mask(tape, x.value.elements(), drop);
  const Var y = tape.result(x.value.shape);
  tape.k.activation(y.value, x.value, bias.value, kind, mask.bits, mask.scale);
  tape.on_backward([&tape, x, bias, y, kind, mask] {
    if (!Tape::has_grad(y) || x.slot == nullptr) return;
    const Tensor& dy = y.slot->grad;
    // In place: nothing reads dy afterwards.
    tape.k.activation_grad(dy, dy, x.value, bias.value, kind, mask.bits, mask.scale);
    add_bias_grad(tape, bias, dy);
    pass_grad_on(tape, x, y);
  });
  return y;
}

}  // namespace qn
