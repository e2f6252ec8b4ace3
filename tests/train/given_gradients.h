// What the tests of updates have in common: batches of tokens, and a model whose gradients are given.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "models/golden_model.h"
#include "tasks/language_modeling.h"
#include "train/update.h"

namespace qn::test {

inline int64_t count_targets(const std::vector<int32_t>& targets) {
  return std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t != kPadId; });
}

/// Token matrices that micro-batches point into.
struct Tokens {
  int64_t rows, cols;
  std::vector<int32_t> source, target;

  MicroBatch micro_batch(LanguageModel& model) const {
    return micro_batch_of(model, {rows, cols, source, target}, count_targets(target));
  }
};

/// A model without layers whose gradients are given by micro-batch and parameter; one target token each.
class GivenGradients : public LanguageModel {
 public:
  using Gradients = std::map<std::string, std::vector<float>>;
  explicit GivenGradients(std::vector<Gradients> by_micro_batch) : gradients_(std::move(by_micro_batch)) {
    for (const Gradients& gradients : gradients_)
      for (const auto& [name, values] : gradients)
        if (parameters().find(name) == nullptr) parameters().add(name, {static_cast<int64_t>(values.size())}, {});
  }
  /// Of the only micro-batch, from now on.
  void set(const Gradients& gradients) { gradients_ = {gradients}; }
  Tensor losses(Tape& tape, const TokenBatch&) override {
    Gradients& mine = gradients_[tape.pass().micro_batch];
    tape.on_backward([this, &tape, &mine] {
      for (auto& [name, values] : mine) {
        const Var parameter = parameters().find(name)->var(tape);
        const Tape::Slot slot = tape.slot(parameter);
        tape.k.axpy(slot.grad, view_of(values.data(), parameter.value.shape), 1.0, slot.beta);
      }
    });
    const Tensor loss = tape.arena.tensor({1}, DType::f64);
    tape.k.fill(loss, 2.0);
    return loss;
  }
  int64_t max_positions() const override { return 1; }
  UpdateResult update(Communicator& ranks, const UpdateOptions& options, Optimizer& optimizer, int64_t tokens = 1) {
    UpdateRunner runner(*this, cpu_kernels(), ranks, options);
    const auto fetch = [&](int64_t) { return micro_batch_of(*this, {}, tokens); };
    return runner.run(0, static_cast<int64_t>(gradients_.size()), fetch, optimizer, 0.5);
  }

 private:
  std::vector<Gradients> gradients_;
};

/// Keeps what an update hands to its optimizer.
class Recorder : public Optimizer {
 public:
  void step(ParameterStore&, const Kernels&, double, const StepDecision* decision) override {
    scale = decision->grad_scale;
  }
  void save(const ParameterStore&, StateDict&) const override {}
  void load(const ParameterStore&, const StateDict&) override {}
  double scale = -1.0;
};

}  // namespace qn::test
