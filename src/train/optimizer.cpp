#include "train/optimizer.h"

#include "train/flat_state.h"

namespace qn {
namespace {

/// A state as large as the parameters, beside them.
OwnedTensor zeros_like_values(const ParameterStore& store) {
  return {store.values().shape, store.dtype(), *store.kernels().memory};
}

bool skipped(const OptimizerConfig& config, const Parameter& p) {
  return config.missing_gradient == MissingGradient::skip && !p.slot.touched;
}

class Nag : public Optimizer {
 public:
  Nag(const OptimizerConfig& config, const ParameterStore& store, double initial_lr)
      : config_(config), lr_previous_(initial_lr), velocity_(zeros_like_values(store)) {}

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    const NagStep args{lr, lr_previous_, config_.momentum, config_.weight_decay};
    if (config_.missing_gradient == MissingGradient::skip) {
      for (const auto& p : store.all())
        if (!skipped(config_, *p)) kernels.nag_step(p->value, state_slice(velocity_, *p), p->slot.grad, args, decision);
    } else {
      kernels.nag_step(store.values(), velocity_.view(), store.grads(), args, decision);
    }
    lr_previous_ = lr;
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_slices(store, velocity_, "optimizer/velocity/", state);
    state.floats["optimizer/lr_previous"] = lr_previous_;
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    load_slices(store, velocity_, "optimizer/velocity/", state);
    lr_previous_ = state.real("optimizer/lr_previous");
  }
  double lr_previous() const override { return lr_previous_; }
  size_t bytes() const override { return velocity_.view().bytes(); }

 private:
  OptimizerConfig config_;
  double lr_previous_;
  OwnedTensor velocity_;
};

class Adam : public Optimizer {
 public:
  Adam(const OptimizerConfig& config, const ParameterStore& store)
      : config_(config),
        mean_(zeros_like_values(store)),
        square_(zeros_like_values(store)),
        steps_(store.all().size(), 0) {}

  void step(ParameterStore& store, const Kernels& kernels, double lr, const StepDecision* decision) override {
    AdamStep args{lr, config_.beta1, config_.beta2, config_.eps, config_.weight_decay, 0};
    const bool flat = config_.missing_gradient != MissingGradient::skip;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Parameter& p = *store.all()[i];
      if (skipped(config_, p)) continue;
      args.step = ++steps_[i];
      if (!flat)
        kernels.adam_step(p.value, state_slice(mean_, p), state_slice(square_, p), p.slot.grad, args, decision);
    }
    if (flat) kernels.adam_step(store.values(), mean_.view(), square_.view(), store.grads(), args, decision);
  }
  void save(const ParameterStore& store, StateDict& state) const override {
    save_slices(store, mean_, "optimizer/mean/", state);
    save_slices(store, square_, "optimizer/square/", state);
    for (size_t i = 0; i < steps_.size(); ++i) state.ints["optimizer/steps/" + store.all()[i]->name] = steps_[i];
  }
  void load(const ParameterStore& store, const StateDict& state) override {
    load_slices(store, mean_, "optimizer/mean/", state);
    load_slices(store, square_, "optimizer/square/", state);
    for (size_t i = 0; i < steps_.size(); ++i) steps_[i] = state.integer("optimizer/steps/" + store.all()[i]->name);
  }
  size_t bytes() const override { return mean_.view().bytes() + square_.view().bytes(); }

 private:
  OptimizerConfig config_;
  OwnedTensor mean_, square_;
  std::vector<int64_t> steps_;
};

}  // namespace

void OptimizerConfig::visit(ConfigVisitor& v) {
  v.choice("name", name, "Nesterov accelerated gradient, or Adam with decoupled weight decay");
  v.field("momentum", momentum, "nag: momentum");
  v.field("beta1", beta1, "adam: decay of the mean");
  v.field("beta2", beta2, "adam: decay of the mean square");
  v.field("eps", eps, "adam: added to the root of the mean square (not bias corrected, as in fairseq)");
  v.field("weight_decay", weight_decay, "decoupled weight decay, on every parameter");
  v.field("clip_norm", clip_norm, "largest global gradient norm (0: no clipping)");
  v.choice("missing_gradient", missing_gradient,
           "a parameter that no micro-batch of an update used: treat its gradient as zero, or skip it");
}

void OptimizerConfig::validate(const ConfigChecker& c) const {
  c.check(momentum >= 0.0 && momentum < 1.0, "momentum", "must be in [0, 1), got {}", momentum);
  c.check(beta1 >= 0.0 && beta1 < 1.0, "beta1", "must be in [0, 1), got {}", beta1);
  c.check(beta2 >= 0.0 && beta2 < 1.0, "beta2", "must be in [0, 1), got {}", beta2);
  c.check(eps > 0.0, "eps", "must be positive, got {}", eps);
  c.check(weight_decay >= 0.0, "weight_decay", "must not be negative, got {}", weight_decay);
  c.check(clip_norm >= 0.0, "clip_norm", "must not be negative, got {}", clip_norm);
}

void check_optimizer(const OptimizerConfig& config, const StateDict& state) {
  const bool nag = state.floats.contains("optimizer/lr_previous");
  const OptimizerKind stored = nag ? OptimizerKind::nag : OptimizerKind::adam;
  QN_CHECK_USAGE(stored == config.name,
                 "the run in checkpoint.dir was trained with optimizer.name: {}, now it is {}: set it back, or begin a "
                 "new run from its weights with checkpoint.init_from and another checkpoint.dir",
                 name_of(stored), name_of(config.name));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const ParameterStore& store,
                                          double initial_lr) {
  if (config.name == OptimizerKind::adam) return std::make_unique<Adam>(config, store);
  return std::make_unique<Nag>(config, store, initial_lr);
}

}  // namespace qn
