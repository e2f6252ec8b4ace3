// What the backwards of several ops do.
#pragma once

#include "ops/ops.h"

namespace qn {

/// Keep bits and scale of one dropout; no bits and scale 1 when it is inactive.
struct DropMask {
  const uint64_t* bits = nullptr;
  double scale = 1.0;
};

/// For n elements.
inline DropMask draw_mask(Tape& tape, int64_t n, const Dropout& drop) {
  if (!tape.training() || drop.p <= 0.0) return {};
  auto* bits = static_cast<uint64_t*>(tape.arena.allocate(static_cast<size_t>(keep_words(n)) * sizeof(uint64_t)));
  tape.k.keep_bits(bits, n, drop.p, tape.key(Purpose::dropout, drop.site));
  return {bits, 1.0 / (1.0 - drop.p)};
}

/// gradient of x += gradient of y, which nothing reads afterwards: at first touch the memory changes hands instead.
inline void pass_grad_on(Tape& tape, const Var& x, const Var& y) {
  if (x.slot == nullptr) return;
  if (!x.slot->touched && !x.slot->grad.defined()) {
    tape.take_over(x, y.slot->grad, true);
    return;
  }
  const Tape::Slot dx = tape.slot(x);
  tape.k.axpy(dx.grad, y.slot->grad, 1.0, dx.beta);
}

/// Where the gradient of x goes when it is made of dy, which nothing reads afterwards: over it, if x has none yet.
inline Tape::Slot slot_in_place_of(Tape& tape, const Var& x, const Tensor& dy) {
  if (!x.slot->touched && !x.slot->grad.defined()) tape.take_over(x, dy, false);
  return tape.slot(x);
}

}  // namespace qn
