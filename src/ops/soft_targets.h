// Learning from the distributions of other models (teachers), whatever the network between input and logits: every
// cross_entropy() of a pass is told, in order, what a teacher's cross_entropy() made of its logits.
//
// With targets y, the student's softmax p and the teachers' mean q, the loss
//   (1 - w) * -log p(y) + w * -sum_c q(c) log p(c)
// has the gradient (p - y) - w (q - y) by the student's logits: that of the plain loss, less w times that of a
// teacher's. So no further kernel is needed. The value of the loss stays that of the targets alone. The second sum is
// the Kullback-Leibler divergence from the teachers but for a constant. Of an adaptive softmax, head and tails are each
// a distribution: the tails count where their band has the target.
#pragma once

#include <cstddef>
#include <vector>

#include "ops/tape.h"

namespace qn {

/// What cross_entropy() does beside on this thread, while an object of this kind lives: one at a time.
class LogitsObserver {
 public:
  LogitsObserver();
  virtual ~LogitsObserver();
  LogitsObserver(const LogitsObserver&) = delete;
  LogitsObserver& operator=(const LogitsObserver&) = delete;
  /// `gradient` is what the logits have become.
  virtual void see(Tape& tape, const Tensor& gradient) = 0;
  /// Null when there is none.
  static LogitsObserver* current();
};

/// The gradients of a teacher's pass by its logits, in order; they live as long as the step arena's tensors.
class TeacherGradients : public LogitsObserver {
 public:
  void see(Tape&, const Tensor& gradient) override { gradients_.push_back(gradient); }
  std::vector<Tensor> take() { return std::move(gradients_); }

 private:
  std::vector<Tensor> gradients_;
};

/// Draws a student to several teachers, with `weight` in [0, 1] for all of them together.
class SoftTargets : public LogitsObserver {
 public:
  /// The lists of TeacherGradients of passes over the same batch.
  SoftTargets(std::vector<std::vector<Tensor>> teachers, double weight)
      : teachers_(std::move(teachers)), weight_(weight) {}
  /// Throws qn::Error when a teacher's logits have another shape.
  void see(Tape& tape, const Tensor& gradient) override;

 private:
  std::vector<std::vector<Tensor>> teachers_;
  double weight_;
  size_t next_ = 0;
};

}  // namespace qn
