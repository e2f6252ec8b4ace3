// Learning from teachers: the gradient is that of the mixed loss, checked against differences of the loss itself.
#include "ops/soft_targets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "nn/layers/linear.h"
#include "nn/module.h"

namespace qn::test {
namespace {

constexpr int64_t kWords = 7, kWidth = 5;

/// Logits of words after words, in double.
class Net : public Module {
 public:
  explicit Net(uint64_t seed) {
    const Scope net = root().in("net");
    table_ = net.table("embed.weight", 0, kWords, kWidth, {InitRule::Kind::normal, 1.0});
    out_ = net.linear("out.weight", groups::kSoftmax, kWords, kWidth, {InitRule::Kind::normal, 1.0});
    allocate(DType::f64, cpu_kernels());
    parameters().initialize(seed);
  }
  Var logits(Tape& tape, std::span<const int32_t> ids) {
    return out_->linear(tape, table_->lookup(tape, ids, 1.0, -1));
  }

 private:
  Weight *table_, *out_;
};

const std::vector<int32_t> kIds = {1, 4, 2}, kTargets = {3, 3, 6};

/// [ids, kWords].
std::vector<double> log_probabilities(Net& net) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f64, {});
  const Tensor x = net.logits(tape, kIds).value;
  std::vector<double> result(x.span<double>().begin(), x.span<double>().end());
  for (size_t row = 0; row < kIds.size(); ++row) {
    double total = 0.0;
    for (size_t c = 0; c < kWords; ++c) total += std::exp(result[row * kWords + c]);
    for (size_t c = 0; c < kWords; ++c) result[row * kWords + c] -= std::log(total);
  }
  return result;
}

double mixed_loss(Net& student, std::span<Net* const> teachers, double weight) {
  const std::vector<double> log_p = log_probabilities(student);
  double loss = 0.0;
  for (size_t row = 0; row < kIds.size(); ++row)
    loss -= (1.0 - weight) * log_p[row * kWords + static_cast<size_t>(kTargets[row])];
  for (Net* teacher : teachers) {
    const std::vector<double> log_q = log_probabilities(*teacher);
    for (size_t i = 0; i < log_p.size(); ++i)
      loss -= weight / static_cast<double>(teachers.size()) * std::exp(log_q[i]) * log_p[i];
  }
  return loss;
}

/// All gradients of the student; `reported` is the loss that the pass gives.
std::vector<double> gradients(Net& student, std::span<Net* const> teachers, double weight, double& reported) {
  Arena arena;
  const PassOptions pass{.training = true, .recording = true};
  Tape tape(cpu_kernels(), arena, DType::f64, pass);
  std::vector<std::vector<Tensor>> seen;
  for (Net* teacher : teachers) {
    TeacherGradients own;
    Tape other(cpu_kernels(), arena, DType::f64, pass);
    cross_entropy(other, teacher->logits(other, kIds), kTargets);
    seen.push_back(own.take());
  }
  SoftTargets targets(std::move(seen), weight);
  student.parameters().begin_gradients();
  const Tensor losses = cross_entropy(tape, student.logits(tape, kIds), kTargets);
  reported = std::accumulate(losses.span<double>().begin(), losses.span<double>().end(), 0.0);
  tape.backward();
  student.parameters().finish_gradients();
  std::vector<double> result;
  for (const auto& p : student.parameters().all())
    result.insert(result.end(), p->slot.grad.span<double>().begin(), p->slot.grad.span<double>().end());
  return result;
}

TEST(SoftTargets, GradientIsThatOfTheMixedLoss) {
  Net student(1), first(2), second(3);
  const std::vector<Net*> teachers = {&first, &second};
  for (const double weight : {0.0, 0.3, 1.0}) {
    double reported = 0.0;
    const std::vector<double> gradient = gradients(student, teachers, weight, reported);
    EXPECT_NEAR(reported, mixed_loss(student, {}, 0.0), 1e-12);  // that of the targets
    size_t i = 0;
    for (const auto& p : student.parameters().all())
      for (double& value : p->value.span<double>()) {
        constexpr double kStep = 1e-6;
        const double was = value;
        value = was + kStep;
        const double above = mixed_loss(student, teachers, weight);
        value = was - kStep;
        const double below = mixed_loss(student, teachers, weight);
        value = was;
        EXPECT_NEAR(gradient[i], (above - below) / (2.0 * kStep), 1e-8) << p->name << " " << weight;
        ++i;
      }
  }
}

TEST(SoftTargets, WhoIsItsOwnTeacherHasNothingToLearn) {
  Net student(1);
  const std::vector<Net*> teachers = {&student};
  double reported = 0.0;
  for (const double g : gradients(student, teachers, 1.0, reported)) EXPECT_EQ(g, 0.0);
}

}  // namespace
}  // namespace qn::test
