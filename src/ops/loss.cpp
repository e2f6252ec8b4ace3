#include "ops/ops.h"
#include "ops/soft_targets.h"

namespace qn {
namespace {

thread_local LogitsObserver* observer = nullptr;

}  // namespace

LogitsObserver::LogitsObserver() {
  QN_ASSERT(observer == nullptr, "one at a time");
  observer = this;
}
LogitsObserver::~LogitsObserver() { observer = nullptr; }
LogitsObserver* LogitsObserver::current() { return observer; }

void SoftTargets::see(Tape& tape, const Tensor& gradient) {
  for (const std::vector<Tensor>& teacher : teachers_) {
    QN_CHECK(next_ < teacher.size() && teacher[next_].shape == gradient.shape,
             "a teacher's logits have another shape than the student's {}", gradient.shape.to_string());
    tape.k.axpy(gradient, teacher[next_], -weight_ / static_cast<double>(teachers_.size()), 1);
  }
  ++next_;
}

void cross_entropy(Tape& tape, const Tensor& losses, const Var& logits, std::span<const int32_t> targets,
                   std::span<const int32_t> rows) {
  QN_ASSERT(static_cast<int64_t>(targets.size()) == logits.value.rows());
  tape.k.cross_entropy(losses, logits.value, tape.upload(targets), rows.empty() ? nullptr : tape.upload(rows),
                       tape.recording(), tape.pass().loss_scale);
  if (!tape.recording()) return;
  QN_ASSERT(!logits.slot->touched);
  *logits.slot = {logits.value, true};
  if (observer != nullptr) observer->see(tape, logits.value);
}

Tensor cross_entropy(Tape& tape, const Var& logits, std::span<const int32_t> targets) {
  const Tensor losses = tape.arena.tensor({logits.value.rows()}, DType::f64);
  tape.k.fill(losses, 0.0);
  cross_entropy(tape, losses, logits, targets, {});
  return losses;
}

}  // namespace qn
