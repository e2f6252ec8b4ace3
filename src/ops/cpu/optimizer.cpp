#include <cmath>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/optimizer_rules.h"

namespace qn::cpu {

void decide_update(UpdateState* state, const UpdateRule& rule) { qn::decide_update(*state, rule); }

void nag_step(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep& step,
              const StepDecision* decision) {
  if (decision->go == 0.0) return;
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    const double ratio = lr_ratio(step, decision->kept_lr);
    const P decay = static_cast<P>(1.0 - step.lr * step.weight_decay);
    const P momentum = static_cast<P>(step.momentum * ratio);
    const P look_ahead = static_cast<P>(step.momentum * step.momentum * ratio);
    const P rate = static_cast<P>(step.lr), reach = static_cast<P>((1.0 + step.momentum) * step.lr);
    const P scale = static_cast<P>(decision->grad_scale);
    P *ps = p.as<P>(), *vs = velocity.as<P>();
    const P* gs = g.as<P>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const P grad = scale * gs[i], v = vs[i];
        ps[i] = decay * ps[i] + look_ahead * v - reach * grad;
        vs[i] = momentum * v - rate * grad;
      }
    });
  });
}

void adam_step(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep& step,
               const StepDecision* decision) {
  if (decision->go == 0.0) return;
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    const auto t = static_cast<double>(step.step) - decision->skipped;
    const double correction = std::sqrt(1.0 - std::pow(step.beta2, t)) / (1.0 - std::pow(step.beta1, t));
    const P b1 = static_cast<P>(step.beta1), b2 = static_cast<P>(step.beta2);
    const P rate = static_cast<P>(step.lr * correction), eps = static_cast<P>(step.eps);
    const P decay = static_cast<P>(1.0 - step.lr * step.weight_decay);
    const P scale = static_cast<P>(decision->grad_scale);
    P *ps = p.as<P>(), *ms = m.as<P>(), *vs = v.as<P>();
    const P* gs = g.as<P>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const P grad = scale * gs[i];
        ms[i] = b1 * ms[i] + (P{1} - b1) * grad;
        vs[i] = b2 * vs[i] + (P{1} - b2) * grad * grad;
        ps[i] = decay * ps[i] - rate * ms[i] / (std::sqrt(vs[i]) + eps);
      }
    });
  });
}

void sgd_step(const Tensor& p, const Tensor& momentum, const Tensor& g, const SgdStep& step,
              const StepDecision* decision) {
  if (decision->go == 0.0) return;
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    P *ps = p.as<P>(), *ms = momentum.defined() ? momentum.as<P>() : nullptr;
    SgdRule<P> rule(step, ms != nullptr);
    if (static_cast<double>(step.step) - decision->skipped <= 1.0) rule.begin();
    const P scale = static_cast<P>(decision->grad_scale);
    const P* gs = g.as<P>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        P m = ms != nullptr ? ms[i] : P{0};
        rule(ps[i], m, scale * gs[i]);
        if (ms != nullptr) ms[i] = m;
      }
    });
  });
}

void rmsprop_step(const Tensor& p, const Tensor& square, const Tensor& momentum, const Tensor& g,
                  const RmspropStep& step, const StepDecision* decision) {
  if (decision->go == 0.0) return;
  dispatch_parameter(p.dtype, [&](auto tag) {
    using P = decltype(tag);
    P *ps = p.as<P>(), *ss = square.as<P>(), *ms = momentum.defined() ? momentum.as<P>() : nullptr;
    const RmspropRule<P> rule(step, ms != nullptr);
    const P scale = static_cast<P>(decision->grad_scale);
    const P* gs = g.as<P>();
    parallel_chunks(p.elements(), [=](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        P m = ms != nullptr ? ms[i] : P{0};
        rule(ps[i], ss[i], m, scale * gs[i]);
        if (ms != nullptr) ms[i] = m;
      }
    });
  });
}

}  // namespace qn::cpu
