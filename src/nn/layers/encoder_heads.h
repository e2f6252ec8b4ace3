// What stands on the encoders of BERT and RoBERTa: the head of the masked language model and that which classifies
// sentences (reference 5.8).
#pragma once

#include <span>

#include "nn/layers/linear.h"

namespace qn {

/// Features of masked positions to words: dense, activation, layer norm, output matrix with a bias for every word.
class MaskedLmHead {
 public:
  /// `tied_to`: the token table that is the output matrix as well, or nullptr for a matrix of its own.
  MaskedLmHead(const Scope& scope, int64_t vocabulary, int64_t width, Activation activation, Weight* tied_to,
               double norm_eps);

  /// x [positions, width] -> [positions, logit_columns(tape, vocabulary)].
  Var logits(Tape& tape, const Var& x) const;
  int64_t vocabulary() const { return words_->rows(); }

 private:
  Activation activation_;
  Weight* words_;
  Parameter* bias_;
  ActivationPoint* words_input_;
  Linear dense_;
  LayerNorm norm_;
};

/// Features of first tokens to classes: dropout, dense, tanh, dropout, out_proj. BERT's has no first dropout, because
/// dense and tanh are its pooler, which was pretrained.
class ClassificationHead {
 public:
  struct Rates {
    double features = 0.0, inner = 0.0;  ///< dropout before `dense`, and before `out_proj`
  };
  ClassificationHead(const Scope& scope, int64_t width, int64_t inner, int64_t classes, const Rates& dropout);

  /// x [sentences, width] -> [sentences, classes].
  Var logits(Tape& tape, const Var& x) const;

 private:
  Rates dropout_;
  Linear dense_, out_;
};

}  // namespace qn
