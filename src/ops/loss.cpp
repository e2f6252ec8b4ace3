#include "ops/ops.h"

namespace qn {

void cross_entropy(Tape& tape, const Tensor& losses, const Var& logits, std::span<const int32_t> targets,
                   std::span<const int32_t> rows) {
  QN_ASSERT(static_cast<int64_t>(targets.size()) == logits.value.rows());
  tape.k.cross_entropy(losses, logits.value, tape.upload(targets), rows.empty() ? nullptr : tape.upload(rows),
                       tape.recording(), tape.pass().loss_scale);
  if (!tape.recording()) return;
  QN_ASSERT(!logits.slot->touched);
  *logits.slot = {logits.value, true};
}

Tensor cross_entropy(Tape& tape, const Var& logits, std::span<const int32_t> targets) {
  const Tensor losses = tape.arena.tensor({logits.value.rows()}, DType::f64);
  tape.k.fill(losses, 0.0);
  cross_entropy(tape, losses, logits, targets, {});
  return losses;
}

}  // namespace qn
