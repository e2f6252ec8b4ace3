// Optimizers on the flat buffers of a parameter store: NAG and Adam with fairseq's formulas (reference 7.4, 7.5), SGD
// as torch's, and RMSprop as TensorFlow's, with which EfficientNets are trained (timm: RMSpropTF).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "nn/parameters.h"
#include "nn/state_dict.h"

namespace qn {

enum class OptimizerKind { nag, adam, sgd, rmsprop_tf };
template <>
struct EnumNames<OptimizerKind> {
  static constexpr EnumName<OptimizerKind> kAll[] = {{OptimizerKind::nag, "nag"},
                                                     {OptimizerKind::adam, "adam"},
                                                     {OptimizerKind::sgd, "sgd"},
                                                     {OptimizerKind::rmsprop_tf, "rmsprop_tf"}};
};

/// Which parameters weight decay acts on: all, or those of two and more dimensions, which leaves out norms and biases.
enum class DecayedParameters { all, weights };
template <>
struct EnumNames<DecayedParameters> {
  static constexpr EnumName<DecayedParameters> kAll[] = {{DecayedParameters::all, "all"},
                                                         {DecayedParameters::weights, "weights"}};
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
  double dampening = 0.0, alpha = 0.9;
  bool nesterov = false, lr_in_momentum = true;
  double weight_decay = 0.0;
  DecayedParameters decay = DecayedParameters::all;
  bool decoupled_decay = false;
  double clip_norm = 0.0;
  MissingGradient missing_gradient = MissingGradient::zero;
  /// Another optimizer: where `momentum` and `eps` are what the one before usually has, they become what this one has.
  void become(OptimizerKind kind);
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One step on all parameters, as the decision (in the backend's memory) says. With missing_gradient = skip,
  /// parameters whose gradient nobody touched are left alone, state included.
  virtual void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) = 0;
  /// Saves to and restores from entries "optimizer" and "optimizer/...".
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
