// Optimizers on the flat buffers of a parameter store: NAG and Adam with fairseq's formulas (reference 7.4, 7.5).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/parameters.h"
#include "nn/state_dict.h"

namespace qn {

enum class OptimizerKind { nag, adam };
template <>
struct EnumNames<OptimizerKind> {
  static constexpr EnumName<OptimizerKind> kAll[] = {{OptimizerKind::nag, "nag"}, {OptimizerKind::adam, "adam"}};
};

/// What the optimizer does with a parameter whose gradient nobody touched.
enum class MissingGradient { zero, skip };
template <>
struct EnumNames<MissingGradient> {
  static constexpr EnumName<MissingGradient> kAll[] = {{MissingGradient::zero, "zero"},
                                                       {MissingGradient::skip, "skip"}};
};

/// The section `optimizer` of a configuration.
struct OptimizerConfig {
  OptimizerKind name = OptimizerKind::nag;
  double momentum = 0.99;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0.0;
  double clip_norm = 0.0;
  MissingGradient missing_gradient = MissingGradient::zero;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One step on all parameters, as the decision (in the backend's memory) says. With missing_gradient = skip,
  /// parameters whose gradient nobody touched are left alone, state included.
  virtual void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) = 0;
  /// Saves to and restores from entries "optimizer/...".
  virtual void save(const ParameterStore& store, StateDict& state) const = 0;
  virtual void load(const ParameterStore& store, const StateDict& state) = 0;
  /// What step() takes for the rate of the update before, where that matters.
  virtual double lr_previous() const { return 0.0; }
  /// Memory of the state beside the parameters.
  virtual size_t bytes() const { return 0; }
};

/// Throws UsageError when `state` was written with another optimizer than that of the configuration.
void check_optimizer(const OptimizerConfig& config, const StateDict& state);

/// A fresh optimizer for the store as it is laid out now; `initial_lr` stands in for the rate before the first update.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const ParameterStore& store,
                                          double initial_lr);

}  // namespace qn
