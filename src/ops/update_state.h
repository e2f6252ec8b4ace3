// What an update knows about itself while it runs. It lives in the backend's memory, so that the optimizer follows the
// gradient without the host having to wait for a device. One rule for all backends.
#pragma once

#include <cmath>

#include "core/philox.h"

namespace qn {

/// What the optimizers' kernels go by.
struct StepDecision {
  double grad_scale = 1.0;  ///< factor of every gradient: mean over tokens, clipping, loss scale
  double go = 1.0;          ///< 0: this update must change nothing
  double skipped = 0.0;     ///< updates of this optimizer that changed nothing
  /// Rate of the last update that was not skipped, where the one before this was; 0: it was not skipped.
  double kept_lr = 0.0;
};

struct UpdateState {
  double loss = 0.0;          ///< natural log, summed over the target tokens of this rank (of all, in host memory)
  double squares = 0.0;       ///< sum of squares of the flat gradient
  double grad_norm = 0.0;     ///< of the gradient of the mean loss, before clipping
  double clipped = 0.0;       ///< 1 when clipping made it shorter
  double overflow = 0.0;      ///< 1 when the update was skipped
  double failed = 0.0;        ///< 1 from the first update on that is not finite and must not be skipped
  double loss_scale = 1.0;    ///< the gradients are those of loss_scale * loss
  double good_updates = 0.0;  ///< since the loss scale last changed
  double in_a_row = 0.0;      ///< updates skipped since the last one that was not, without loss scaling
  StepDecision decision{};
};

struct UpdateRule {
  double tokens = 1.0;           ///< target tokens of all ranks
  double clip_norm = 0.0;        ///< 0: no clipping
  double growth_interval = 0.0;  ///< the loss scale doubles after so many good updates; 0: it is constant
  double minimum_scale = 0.0;    ///< a scale that falls below has failed
  double skip_limit = 0.0;       ///< without loss scaling, so many updates in a row may be skipped
  double lr_previous = 0.0;      ///< what the optimizer takes for the rate of the update before
};

/// From the sum of squares to the decision. Clipping as fairseq in fp32: min(1, c / (norm + 1e-6)) (reference 7.3).
/// Loss scaling: halved when the gradient overflows, doubled after growth_interval good updates (reference 7.7).
/// An update whose loss or gradient is not finite changes nothing: it is skipped, or the run has failed.
QN_HOST_DEVICE inline void decide_update(UpdateState& s, const UpdateRule& rule) {
  const double mean = 1.0 / (rule.tokens * s.loss_scale);
  s.grad_norm = std::sqrt(s.squares) * mean;
  s.clipped = s.overflow = 0.0;
  const bool finite = s.grad_norm - s.grad_norm == 0.0 && s.loss - s.loss == 0.0;
  if (s.decision.go != 0.0) s.decision.kept_lr = 0.0;  // the update before
  if (!finite && s.decision.kept_lr == 0.0) s.decision.kept_lr = rule.lr_previous;
  s.decision.grad_scale = mean;
  if (finite && rule.clip_norm > 0.0) {
    const double factor = rule.clip_norm / (s.grad_norm + 1e-6);
    s.clipped = factor < 1.0 ? 1.0 : 0.0;
    s.decision.grad_scale *= factor < 1.0 ? factor : 1.0;
  }
  if (rule.growth_interval == 0.0) {
    s.in_a_row = finite ? 0.0 : s.in_a_row + 1.0;
    if (s.in_a_row > rule.skip_limit) s.failed = 1.0;
    if (!finite && s.failed == 0.0) {
      s.overflow = 1.0;
      s.decision.skipped += 1.0;
    }
  }
  s.decision.go = finite && s.failed == 0.0 ? 1.0 : 0.0;
  if (rule.growth_interval == 0.0) return;
  if (finite) {
    s.good_updates += 1.0;
    if (s.good_updates < rule.growth_interval) return;
    s.loss_scale *= 2.0;
  } else {
    s.overflow = 1.0;
    s.decision.skipped += 1.0;
    s.loss_scale /= 2.0;
    if (s.loss_scale < rule.minimum_scale) s.failed = 1.0;
  }
  s.good_updates = 0.0;
}

}  // namespace qn
