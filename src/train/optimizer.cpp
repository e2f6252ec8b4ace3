#include "train/optimizer.h"

#include <optional>

#include "train/flat_state.h"

namespace qn {
namespace {

constexpr const char *kName = "optimizer", *kVelocity = "optimizer/velocity/", *kLrPrevious = "optimizer/lr_previous",
                     *kMean = "optimizer/mean/", *kSquare = "optimizer/square/", *kMomentum = "optimizer/momentum/",
                     *kSteps = "optimizer/steps/";

double usual_momentum(OptimizerKind kind) {
  return kind == OptimizerKind::sgd || kind == OptimizerKind::rmsprop_tf ? 0.9 : 0.99;
}

double usual_eps(OptimizerKind kind) { return kind == OptimizerKind::rmsprop_tf ? 1e-3 : 1e-8; }

/// A state as large as the parameters, beside them.
OwnedTensor zeros_like_values(const ParameterStore& store) {
  return {store.values().shape, store.dtype(), *store.kernels().memory};
}

bool holds(const StateDict& state, const std::string& prefix) {
  const auto entry = state.tensors.lower_bound(prefix);
  return entry != state.tensors.end() && entry->first.starts_with(prefix);
}

/// Adjacent parameters that a step treats alike: elements [begin, end) of the flat buffers.
struct Part {
  int64_t begin, end;
  double weight_decay;
  int64_t step;  ///< number of this step, from 1
};

/// What all optimizers have in common: which parameters take a step, and how many they have taken.
class FlatOptimizer : public Optimizer {
 public:
  FlatOptimizer(const OptimizerConfig& config, const ParameterStore& store)
      : config_(config), steps_(store.all().size(), 0) {}

 protected:
  const OptimizerConfig& config() const { return config_; }

  /// Calls kernel(part) for all parameters that take the step: once if they are all treated alike.
  template <typename F>
  void for_each_part(const ParameterStore& store, F&& kernel) {
    const bool skip = config_.missing_gradient == MissingGradient::skip;
    std::optional<Part> part;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Parameter& p = *store.all()[i];
      if (skip && !p.slot.touched) continue;
      // Parts go up to the next parameter: the padding between stays zero.
      const int64_t end = skip ? p.offset + p.shape.elements() : end_of(store, i);
      const Part own{p.offset, end, decay_of(p), ++steps_[i]};
      if (part && !skip && part->weight_decay == own.weight_decay) {
        part->end = own.end;
        part->step = own.step;
        continue;
      }
      if (part) kernel(*part);
      part = own;
    }
    if (part) kernel(*part);
  }
  static Tensor slice(const Tensor& flat, const Part& part) {
    if (!flat.defined()) return {};
    auto* base = static_cast<std::byte*>(flat.data) + static_cast<size_t>(part.begin) * size_of(flat.dtype);
    return {base, {part.end - part.begin}, flat.dtype};
  }
  void save_name(StateDict& state) const { state.texts[kName] = name_of(config_.name); }
  void save_steps(const ParameterStore& store, StateDict& state) const {
    for (size_t i = 0; i < steps_.size(); ++i) state.ints[kSteps + store.all()[i]->name] = steps_[i];
  }
  void load_steps(const ParameterStore& store, const StateDict& state) {
    for (size_t i = 0; i < steps_.size(); ++i) steps_[i] = state.integer(kSteps + store.all()[i]->name);
  }

 private:
  static int64_t end_of(const ParameterStore& store, size_t i) {
    return i + 1 < store.all().size() ? store.all()[i + 1]->offset : store.values().elements();
  }
  double decay_of(const Parameter& p) const {
    return config_.decay == DecayedParameters::all || p.shape.rank() > 1 ? config_.weight_decay : 0.0;
  }

  OptimizerConfig config_;
  std::vector<int64_t> steps_;
};

class Nag : public FlatOptimizer {
 public:
  Nag(const OptimizerConfig& config, const ParameterStore& store, double initial_lr)
      : FlatOptimizer(config, store), lr_previous_(initial_lr), velocity_(zeros_like_values(store)) {}

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    for_each_part(store, [&](const Part& part) {
      kernels.nag_step(slice(store.values(), part), slice(velocity_.view(), part), slice(store.grads(), part),
                       {lr, lr_previous_, config().momentum, part.weight_decay}, decision);
    });
    lr_previous_ = lr;
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_name(state);
    save_slices(store, velocity_, kVelocity, state);
    state.floats[kLrPrevious] = lr_previous_;
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    load_slices(store, velocity_, kVelocity, state);
    lr_previous_ = state.real(kLrPrevious);
  }
  double lr_previous() const override { return lr_previous_; }
  size_t bytes() const override { return velocity_.view().bytes(); }

 private:
  double lr_previous_;
  OwnedTensor velocity_;
};

class Adam : public FlatOptimizer {
 public:
  Adam(const OptimizerConfig& config, const ParameterStore& store)
      : FlatOptimizer(config, store), mean_(zeros_like_values(store)), square_(zeros_like_values(store)) {}

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    const OptimizerConfig& c = config();
    for_each_part(store, [&](const Part& part) {
      kernels.adam_step(slice(store.values(), part), slice(mean_.view(), part), slice(square_.view(), part),
                        slice(store.grads(), part), {lr, c.beta1, c.beta2, c.eps, part.weight_decay, part.step},
                        decision);
    });
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_name(state);
    save_slices(store, mean_, kMean, state);
    save_slices(store, square_, kSquare, state);
    save_steps(store, state);
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    load_slices(store, mean_, kMean, state);
    load_slices(store, square_, kSquare, state);
    load_steps(store, state);
  }
  size_t bytes() const override { return mean_.view().bytes() + square_.view().bytes(); }

 private:
  OwnedTensor mean_, square_;
};

/// What SGD and RMSprop keep of momentum: nothing where it is 0. Where a run had none so far, the buffer is as in a new
/// run.
class Momentum {
 public:
  Momentum(const OptimizerConfig& config, const ParameterStore& store) {
    if (config.momentum > 0.0) buffer_ = zeros_like_values(store);
  }
  const Tensor& view() const { return buffer_.view(); }
  size_t bytes() const { return view().defined() ? view().bytes() : 0; }
  void save(const ParameterStore& store, StateDict& state) const {
    if (view().defined()) save_slices(store, buffer_, kMomentum, state);
  }
  /// False when there is none to load.
  bool load(const ParameterStore& store, const StateDict& state) {
    if (!view().defined() || !holds(state, kMomentum)) return false;
    load_slices(store, buffer_, kMomentum, state);
    return true;
  }

 private:
  OwnedTensor buffer_;
};

class Sgd : public FlatOptimizer {
 public:
  Sgd(const OptimizerConfig& config, const ParameterStore& store)
      : FlatOptimizer(config, store), momentum_(config, store) {}

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    const OptimizerConfig& c = config();
    for_each_part(store, [&](const Part& part) {
      kernels.sgd_step(slice(store.values(), part), slice(momentum_.view(), part), slice(store.grads(), part),
                       {lr, c.momentum, c.dampening, part.weight_decay, c.decoupled_decay, c.nesterov, part.step},
                       decision);
    });
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_name(state);
    momentum_.save(store, state);
    if (momentum_.view().defined()) save_steps(store, state);
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    if (momentum_.load(store, state)) load_steps(store, state);
  }
  size_t bytes() const override { return momentum_.bytes(); }

 private:
  Momentum momentum_;
};

class RmspropTf : public FlatOptimizer {
 public:
  RmspropTf(const OptimizerConfig& config, const ParameterStore& store)
      : FlatOptimizer(config, store), square_(zeros_like_values(store)), momentum_(config, store) {
    store.kernels().fill(square_.view(), 1.0);
  }

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    const OptimizerConfig& c = config();
    for_each_part(store, [&](const Part& part) {
      kernels.rmsprop_step(slice(store.values(), part), slice(square_.view(), part), slice(momentum_.view(), part),
                           slice(store.grads(), part),
                           {lr, c.alpha, c.momentum, c.eps, part.weight_decay, c.decoupled_decay, c.lr_in_momentum},
                           decision);
    });
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_name(state);
    save_slices(store, square_, kSquare, state);
    momentum_.save(store, state);
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    load_slices(store, square_, kSquare, state);
    momentum_.load(store, state);
  }
  size_t bytes() const override { return square_.view().bytes() + momentum_.bytes(); }

 private:
  OwnedTensor square_;
  Momentum momentum_;
};

}  // namespace

void OptimizerConfig::become(OptimizerKind kind) {
  if (momentum == usual_momentum(name)) momentum = usual_momentum(kind);
  if (eps == usual_eps(name)) eps = usual_eps(kind);
  name = kind;
}

/// Values that depend on `name` change when it is read, before the keys behind it are.
void OptimizerConfig::visit(ConfigVisitor& v) {
  OptimizerKind kind = name;
  v.choice("name", kind,
           "Nesterov accelerated gradient and Adam as fairseq's, SGD as torch's, or RMSprop as TensorFlow's, the "
           "optimizer of EfficientNets");
  become(kind);
  v.field("momentum", momentum, "nag, sgd, rmsprop_tf: momentum (unless given, that of sgd and rmsprop_tf is 0.9)");
  v.field("dampening", dampening, "sgd: gradients after the first count less by this share in the momentum");
  v.field("nesterov", nesterov, "sgd: Nesterov's momentum, as torch's");
  v.field("beta1", beta1, "adam: decay of the mean");
  v.field("beta2", beta2, "adam: decay of the mean square");
  v.field("alpha", alpha, "rmsprop_tf: decay of the mean square, which starts at 1");
  v.field("lr_in_momentum", lr_in_momentum,
          "rmsprop_tf: momentum collects steps, which a later rate does not change, as TensorFlow's (false: what is "
          "multiplied by the rate)");
  v.field(
      "eps", eps,
      "adam: added to the root of the mean square (not bias corrected, as in fairseq); rmsprop_tf: added inside the "
      "root (unless given, 0.001)");
  v.field("weight_decay", weight_decay,
          "weight decay: decoupled (nag, adam), or added to the gradient (sgd, rmsprop_tf)");
  v.field("decoupled_decay", decoupled_decay, "sgd, rmsprop_tf: decoupled weight decay, too");
  v.choice(
      "decay", decay,
      "what decays: every parameter, or weights only, which are the parameters of two and more dimensions: neither "
      "norms nor biases");
  v.field("clip_norm", clip_norm, "largest global gradient norm (0: no clipping)");
  v.choice("missing_gradient", missing_gradient,
           "a parameter that no micro-batch of an update used: treat its gradient as zero, or skip it");
}

void OptimizerConfig::validate(const ConfigChecker& c) const {
  for (const auto& [key, value] : {std::pair{"momentum", momentum},
                                   {"beta1", beta1},
                                   {"beta2", beta2},
                                   {"alpha", alpha},
                                   {"dampening", dampening}})
    c.check(value >= 0.0 && value < 1.0, key, "must be in [0, 1), got {}", value);
  c.check(name != OptimizerKind::sgd || !nesterov || (momentum > 0.0 && dampening == 0.0), "nesterov",
          "needs momentum and no dampening: momentum is {}, dampening {}", momentum, dampening);
  c.check(eps > 0.0, "eps", "must be positive, got {}", eps);
  c.check(weight_decay >= 0.0, "weight_decay", "must not be negative, got {}", weight_decay);
  c.check(clip_norm >= 0.0, "clip_norm", "must not be negative, got {}", clip_norm);
}

void check_optimizer(const OptimizerConfig& config, const StateDict& state) {
  // Checkpoints of older programs do not name it.
  const auto stored = state.texts.find(kName);
  const std::string was = stored != state.texts.end()
                              ? stored->second
                              : name_of(state.floats.contains(kLrPrevious) ? OptimizerKind::nag : OptimizerKind::adam);
  QN_CHECK_USAGE(was == name_of(config.name),
                 "the run in checkpoint.dir was trained with optimizer.name: {}, now it is {}: set it back, or begin a "
                 "new run from its weights with checkpoint.init_from and another checkpoint.dir",
                 was, name_of(config.name));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const ParameterStore& store,
                                          double initial_lr) {
  switch (config.name) {
    case OptimizerKind::nag:
      return std::make_unique<Nag>(config, store, initial_lr);
    case OptimizerKind::adam:
      return std::make_unique<Adam>(config, store);
    case OptimizerKind::sgd:
      return std::make_unique<Sgd>(config, store);
    case OptimizerKind::rmsprop_tf:
      return std::make_unique<RmspropTf>(config, store);
  }
  QN_ASSERT(false, "unknown optimizer");
}

}  // namespace qn
