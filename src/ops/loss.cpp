#include "ops/host_access.h"
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

int64_t logit_columns(const Tape& tape, int64_t classes) {
  constexpr int64_t kMultiple = 64;  // of 16-bit numbers: 128 bytes
  if (on_host(tape.k) || classes < kMultiple) return classes;
  return (classes + kMultiple - 1) / kMultiple * kMultiple;
}

void cross_entropy(Tape& tape, const Tensor& losses, const Var& logits, int64_t classes,
                   std::span<const int32_t> targets, std::span<const int32_t> rows, double smoothing) {
  QN_ASSERT(std::ssize(targets) == logits.value.rows() && classes <= logits.value.cols());
  tape.k.cross_entropy(losses, logits.value, classes, tape.upload(targets), rows.empty() ? nullptr : tape.upload(rows),
                       smoothing, tape.recording(), tape.pass().loss_scale);
  if (!tape.recording()) return;
  QN_ASSERT(!logits.slot->touched);
  *logits.slot = {logits.value, true};
  if (observer != nullptr) observer->see(tape, logits.value);
}

Tensor squared_error(Tape& tape, const Var& y, std::span<const float> targets) {
  return squared_error(tape, y, input_values(tape, targets, y.value.shape));
}

Tensor squared_error(Tape& tape, const Var& y, const Tensor& targets) {
  QN_CHECK_USAGE(tape.pass().loss_scale == nullptr, "a squared error cannot be trained in fp16: use bf16 or fp32");
  const Tensor difference = tape.parameter_tensor(y.value.shape);
  tape.k.copy(difference, y.value);
  tape.k.axpy(difference, targets, -1.0, 1);
  const Tensor loss = tape.arena.tensor({1}, DType::f64);
  tape.k.sum_of_squares(loss.as<double>(), difference);
  tape.on_backward([&tape, y, difference] {
    const Tape::Slot slot = tape.slot(y);
    tape.k.axpy(slot.grad, difference, 2.0, slot.beta);
  });
  return loss;
}

Tensor cross_entropy(Tape& tape, const Var& logits, std::span<const int32_t> targets, double smoothing) {
  const Tensor losses = tape.arena.tensor({logits.value.rows()}, DType::f64);
  tape.k.fill(losses, 0.0);
  cross_entropy(tape, losses, logits, logits.value.cols(), targets, {}, smoothing);
  return losses;
}

}  // namespace qn
