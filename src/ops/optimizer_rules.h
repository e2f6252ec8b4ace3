// What a step of SGD or RMSprop does to an element: one rule for all backends. Computes in the parameters' type P.
#pragma once

#include <cmath>

#include "ops/kernels.h"

namespace qn {

/// torch.optim.SGD, or with decoupled decay timm's SGDW. A parameter without momentum has no buffer: it is handed a
/// zero each time.
template <typename P>
struct SgdRule {
  P keep, l2, carry, share, of_gradient, of_momentum, rate;

  SgdRule(const SgdStep& step, bool buffered)
      : keep(static_cast<P>(step.decoupled ? 1.0 - step.lr * step.weight_decay : 1.0)),
        l2(static_cast<P>(step.decoupled ? 0.0 : step.weight_decay)),
        carry(static_cast<P>(step.momentum)),
        share(static_cast<P>(1.0 - step.dampening)),
        of_gradient(step.nesterov ? P{1} : P{0}),
        of_momentum(step.nesterov ? static_cast<P>(step.momentum) : P{1}),
        rate(static_cast<P>(step.lr)) {
    if (!buffered) begin();
  }
  /// The buffer is empty: it becomes the gradient, even with dampening.
  QN_HOST_DEVICE void begin() {
    carry = P{0};
    share = P{1};
  }
  QN_HOST_DEVICE void operator()(P& p, P& momentum, P gradient) const {
    const P total = gradient + l2 * p;
    momentum = carry * momentum + share * total;
    p = keep * p - rate * (of_gradient * total + of_momentum * momentum);
  }
};

/// RMSprop as TensorFlow's (timm: RMSpropTF): eps inside the root, and as a rule the rate inside the momentum, which a
/// later rate does not change. Mean squares start at one. Without momentum as above.
template <typename P>
struct RmspropRule {
  P keep, l2, share, eps, carry, inner, outer;

  RmspropRule(const RmspropStep& step, bool buffered)
      : keep(static_cast<P>(step.decoupled ? 1.0 - step.lr * step.weight_decay : 1.0)),
        l2(static_cast<P>(step.decoupled ? 0.0 : step.weight_decay)),
        share(static_cast<P>(1.0 - step.alpha)),
        eps(static_cast<P>(step.eps)),
        carry(static_cast<P>(buffered ? step.momentum : 0.0)),
        inner(static_cast<P>(step.lr_in_momentum ? step.lr : 1.0)),
        outer(static_cast<P>(step.lr_in_momentum ? 1.0 : step.lr)) {}
  QN_HOST_DEVICE void operator()(P& p, P& square, P& momentum, P gradient) const {
    const P total = gradient + l2 * p;
    square += share * (total * total - square);
    momentum = carry * momentum + inner * total / std::sqrt(square + eps);
    p = keep * p - outer * momentum;
  }
};

}  // namespace qn
