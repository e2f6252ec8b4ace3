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

}  // namespace qn
