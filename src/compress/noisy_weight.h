// What noise on dense weights has in common, whatever its form.
#pragma once

#include "nn/weight.h"

namespace qn {

/// Draws noise at a rate that the run sets before every update (run_noise.h).
class NoisyWeight : public Representation {
 public:
  NoisyWeight(Parameter* dense, double rate) : dense_(dense), rate_(rate), id_(hash_name(dense->name.c_str())) {}
  double rate() const { return rate_; }  ///< 0: the weight is as it is in training
  void set_rate(double rate) { rate_ = rate; }

 protected:
  Parameter* dense() const { return dense_; }
  /// For the key of random numbers.
  uint64_t id() const { return id_; }
  /// The master as [rows, cols].
  Var matrix(Tape& tape) const {
    Var w = dense_->var(tape);
    w.value = w.value.reshaped({w.value.shape[0], w.value.elements() / w.value.shape[0]});
    return w;
  }

 private:
  Parameter* dense_;
  double rate_;
  uint64_t id_;
};

}  // namespace qn
