#include "nn/layers/encoder_heads.h"

#include "nn/layers/output_head.h"
#include "nn/layers/transformer_layer.h"

namespace qn {
namespace {
constexpr uint64_t kFirstSite = 12;  // dropout sites of a model's output end, behind those of the adaptive softmax
}

MaskedLmHead::MaskedLmHead(const Scope& scope, int64_t vocabulary, int64_t width, Activation activation,
                           Weight* tied_to, double norm_eps)
    : activation_(activation), words_(tied_to) {
  if (tied_to != nullptr)
    scope.tie("weight", groups::kSoftmax, &words_);
  else
    words_ = scope.linear("weight", groups::kSoftmax, vocabulary, width, init::fan_in(width));
  words_input_ = scope.activation("input");
  bias_ = scope.parameter("bias", {vocabulary}, init::zeros());
  dense_ = Linear::build(scope, "dense", groups::kHead, width, width, init::normal(kBertDeviation), init::zeros());
  norm_ = LayerNorm::build(scope, "layer_norm", width, norm_eps);
}

Var MaskedLmHead::logits(Tape& tape, const Var& x) const {
  const Unbiased inner = dense_.without_bias(tape, x);
  const Var features = norm_(tape, activation_dropout(tape, inner.value, inner.bias, activation_, {}));
  return word_logits(tape, (*words_input_)(tape, features), {&words_, 1}, bias_->var(tape), *words_input_);
}

ClassificationHead::ClassificationHead(const Scope& scope, int64_t width, int64_t inner, int64_t classes,
                                       const Rates& dropout)
    : dropout_(dropout),
      dense_(Linear::build(scope, "dense", groups::kHead, inner, width, init::fan_in(width), init::fan_in(width))),
      out_(Linear::build(scope, "out_proj", groups::kHead, classes, inner, init::fan_in(inner), init::fan_in(inner))) {}

Var ClassificationHead::logits(Tape& tape, const Var& x) const {
  const Unbiased inner = dense_.without_bias(tape, dropout(tape, x, {dropout_.features, kFirstSite}));
  return out_(tape,
              activation_dropout(tape, inner.value, inner.bias, Activation::tanh, {dropout_.inner, kFirstSite + 1}));
}

}  // namespace qn
