// Ops on weights: the cast to the type of activations, noise, and decoding of product-quantization codes.
#include "ops/ops.h"

namespace qn {

Var cast_to_compute(Tape& tape, const Var& weight) {
  if (weight.value.dtype == tape.dtype()) return weight;
  const Tensor cast = tape.tensor(weight.value.shape);
  tape.k.copy(cast, weight.value);
  return {cast, weight.slot};
}

Var block_noise(Tape& tape, const Var& weight, int64_t block, double p, uint64_t id) {
  if (!tape.training() || p <= 0.0) return weight;
  const Tensor noisy = tape.tensor(weight.value.shape);
  tape.k.block_noise(noisy, weight.value, block, p, tape.key(Purpose::noise, id));
  return {noisy, weight.slot};  // straight-through: the gradient slot is the clean weight's
}

Var replace_blocks(Tape& tape, const Var& weight, const BlockReplacement& how) {
  if (!tape.training() || how.p <= 0.0) return weight;
  const Tensor noisy = tape.tensor(weight.value.shape);
  tape.k.replace_blocks(noisy, weight.value, how.values, how.codes, how.clusters, how.p, how.scale,
                        tape.key(Purpose::noise, how.id));
  return {noisy, weight.slot};
}

void straight_through(Tape& tape, const Var& y, const Var& x) {
  if (x.slot == nullptr) return;
  tape.on_backward([&tape, y, x] {
    if (!Tape::has_grad(y)) return;
    const Tape::Slot slot = tape.slot(x);
    tape.k.axpy(slot.grad, y.slot->grad, 1.0, slot.beta);
  });
}

Var pq_weight(Tape& tape, const Var& centroids, const uint16_t* codes, const int64_t* counts, Shape shape) {
  const Var w = tape.weight_result(shape);
  tape.k.pq_decode(w.value, centroids.value, codes);
  tape.on_backward([&tape, w, centroids, codes, counts] {
    if (!Tape::has_grad(w) || centroids.slot == nullptr) return;
    const Tape::Slot slot = tape.slot(centroids);
    tape.k.pq_centroid_grad(slot.grad, w.slot->grad, codes, counts, slot.beta);
  });
  return w;
}

Var scale_rows(Tape& tape, const Var& weight, const Var& scale) {
  const Var w = tape.weight_result(weight.value.shape);
  tape.k.scale_rows(w.value, weight.value, scale.value, 0);
  tape.on_backward([&tape, w, weight, scale] {
    if (!Tape::has_grad(w)) return;
    if (scale.slot != nullptr) {
      const Tape::Slot slot = tape.slot(scale);
      tape.k.row_dots(slot.grad, w.slot->grad, weight.value, slot.beta);
    }
    if (weight.slot == nullptr) return;
    if (!weight.slot->touched && !weight.slot->grad.defined()) tape.take_over(weight, w.slot->grad, false);
    const Tape::Slot slot = tape.slot(weight);
    tape.k.scale_rows(slot.grad, w.slot->grad, scale.value, slot.beta);
  });
  return w;
}

}  // namespace qn
