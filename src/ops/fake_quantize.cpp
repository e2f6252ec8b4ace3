// Scalar quantization in the forward pass of training.
#include "ops/ops.h"

namespace qn {
namespace {

/// The quantized value of x; its gradient collects in the type that x's does.
Var result_like(Tape& tape, const Var& x) {
  if (x.slot == nullptr) return {tape.tensor(x.value.shape), nullptr};
  return x.slot->grad.dtype == tape.parameter_dtype() ? tape.weight_result(x.value.shape) : tape.result(x.value.shape);
}

}  // namespace

Var fake_quantize(Tape& tape, const Var& x, const FakeQuantize& how) {
  const double rate = tape.training() ? how.p : 1.0;
  const Var y = how.covers ? Var{tape.tensor(x.value.shape), x.slot} : result_like(tape, x);
  tape.k.fake_quantize(y.value, x.value, how.scale, how.zero_point, how.bits, rate, how.block,
                       tape.key(Purpose::noise, how.id));
  if (how.covers || x.slot == nullptr) return y;
  tape.on_backward([&tape, x, y, scale = how.scale, zero_point = how.zero_point, bits = how.bits] {
    if (!Tape::has_grad(y)) return;
    const Tape::Slot dx = tape.slot(x);
    tape.k.fake_quantize_grad(dx.grad, y.slot->grad, x.value, scale, zero_point, bits, dx.beta);
  });
  return y;
}

}  // namespace qn
