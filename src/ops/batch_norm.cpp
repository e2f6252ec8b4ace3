#include "ops/gradient.h"
#include "ops/vision.h"

namespace qn {
namespace {

/// Mean and 1 / sqrt(variance + eps) that this pass normalises by.
Tensor batch_statistics(Tape& tape, const Var& x, const BatchNormArgs& args) {
  const int64_t channels = x.value.cols();
  const Tensor stats = tape.parameter_tensor({2, channels});
  QN_CHECK(x.value.rows() > 1 || tape.pass().ranks != nullptr,
           "a batch of one image of one pixel has no variance to normalise by: train with larger batches");
  const Tensor sums = tape.arena.tensor({2 * channels + 1}, DType::f64);
  tape.k.batch_norm_sums(sums, x.value);
  if (tape.pass().ranks != nullptr) tape.pass().ranks->sum(sums);
  tape.k.batch_norm_statistics(stats, args.batch_sums, sums, {}, {}, args.eps);
  return stats;
}

Tensor running_statistics(Tape& tape, const BatchNormArgs& args) {
  QN_ASSERT(args.running_mean.defined() && args.running_var.defined());
  const Tensor stats = tape.parameter_tensor({2, args.running_mean.elements()});
  tape.k.batch_norm_statistics(stats, {}, {}, args.running_mean, args.running_var, args.eps);
  return stats;
}

}  // namespace

Var batch_norm(Tape& tape, const Var& x, const Var& weight, const Var& bias, const BatchNormArgs& args) {
  QN_ASSERT(weight.value.elements() == x.value.cols() && bias.value.elements() == x.value.cols());
  const bool of_batch = tape.batch_statistics() && !args.frozen;
  const Tensor stats = of_batch ? batch_statistics(tape, x, args) : running_statistics(tape, args);
  const Var y = tape.result(x.value.shape);
  tape.k.batch_norm(y.value, x.value, stats, weight.value, bias.value, args.activation);
  tape.on_backward([&tape, x, y, weight, bias, stats, of_batch, act = args.activation] {
    if (!Tape::has_grad(y)) return;
    const Tensor& dy = y.slot->grad;
    const Tensor sums = tape.arena.tensor({2 * x.value.cols() + 1}, DType::f64);
    const auto slot_of = [&](const Var& v) {  // of a frozen one: memory that nobody reads
      return v.slot != nullptr ? tape.slot(v) : Tape::Slot{tape.parameter_tensor(v.value.shape), 0};
    };
    if (of_batch || weight.slot != nullptr || bias.slot != nullptr) {
      const Tape::Slot dw = slot_of(weight), db = slot_of(bias);
      tape.k.batch_norm_grad_sums(sums, dw.grad, dw.beta, db.grad, db.beta, dy, x.value, stats, weight.value,
                                  bias.value, act);
    }
    if (x.slot == nullptr) return;
    if (of_batch && tape.pass().ranks != nullptr) tape.pass().ranks->sum(sums);
    const Tape::Slot dx = slot_in_place_of(tape, x, dy);
    tape.k.batch_norm_grad(dx.grad, dx.beta, dy, x.value, stats, weight.value, bias.value, of_batch ? sums : Tensor{},
                           act);
  });
  return y;
}

ConvEpilogue fold_batch_norm(Tape& tape, const Var& weight, const Var& bias, const BatchNormArgs& args) {
  QN_ASSERT(!tape.recording() && (!tape.batch_statistics() || args.frozen));
  const Tensor scale = tape.parameter_tensor(weight.value.shape), shift = tape.parameter_tensor(weight.value.shape);
  tape.k.batch_norm_fold(scale, shift, weight.value, bias.value, args.running_mean, args.running_var, args.eps);
  return {.scale = scale, .shift = shift, .activation = args.activation};
}

}  // namespace qn
