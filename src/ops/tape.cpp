#include "ops/tape.h"

#include <atomic>

namespace qn {

uint64_t Tape::next_pass_id() {
  static std::atomic<uint64_t> counter{0};
  return ++counter;
}

Var Tape::result_with_gradient(Shape shape, DType grad) {
  Var v{tensor(shape), nullptr};
  if (recording())
    v.slot = new (host_arena_.allocate(sizeof(GradientSlot))) GradientSlot{{nullptr, shape, grad}, false};
  return v;
}

const int32_t* Tape::upload(std::span<const int32_t> indices) {
  auto* place = static_cast<int32_t*>(arena.allocate(indices.size_bytes()));
  k.upload(place, indices.data(), indices.size_bytes());
  return place;
}

Tape::Slot Tape::slot(const Var& v) {
  QN_ASSERT(v.slot != nullptr);
  GradientSlot& slot = *v.slot;
  if (!slot.grad.defined()) slot.grad = arena.tensor(v.value.shape, slot.grad.dtype);
  const int beta = slot.touched ? 1 : 0;
  slot.touched = true;
  return {slot.grad, beta};
}

Tensor Tape::accumulation_slot(const Var& v) {
  const Slot s = slot(v);
  if (s.beta == 0) k.fill(s.grad, 0.0);
  return s.grad;
}

void Tape::restart(const PassOptions& pass) {
  steps_.clear();
  host_arena_.reset();
  pass_ = pass;
  pass_id_ = next_pass_id();
}

}  // namespace qn
