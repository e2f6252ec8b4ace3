#include "nn/layers/transformer_layer.h"

#include <algorithm>
#include <array>
#include <numbers>
#include <utility>

namespace qn {

namespace {

/// How the parts of a block start.
struct Starts {
  InitRule qkv, qkv_bias, out, fc1, fc2, fc1_bias, fc2_bias;
};

Starts starts_of(const TransformerLayerOptions& options) {
  const int64_t d = options.width, f = options.ffn;
  if (options.init == LayerInit::bert) {
    const InitRule matrix = init::normal(kBertDeviation), zero = init::zeros();
    return {matrix, zero, matrix, matrix, matrix, zero, zero};
  }
  constexpr double kGain = std::numbers::sqrt2 / 2;
  return {init::xavier(d, d, kGain), init::fan_in(d), init::xavier(d, d), init::fan_in(d),
          init::fan_in(f),           init::fan_in(d), init::fan_in(f)};
}

Var attend(Tape& tape, const Var& qkv, const RowLayout& rows, const TransformerLayerOptions& options,
           const Dropout& drop) {
  if (const auto* equal = std::get_if<EqualSequences>(&rows))
    return attention(tape, qkv, equal->batch, equal->time, options.heads, options.causal, drop);
  return attention(tape, qkv, std::get<Sequences>(rows), options.heads, options.causal, drop);
}

}  // namespace

TransformerLayer::TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayerOptions& options)
    : options_(options), first_site_((index + 1) * kSitesPerLayer) {
  const int64_t d = options.width, f = options.ffn;
  const Starts starts = starts_of(options);
  const Scope attention = scope.in("self_attn");
  attention_input_ = attention.activation("input");
  const auto projection = [&](const std::string& name) {
    return Linear{.weight = attention.linear(name + ".weight", groups::kAttention, d, d, starts.qkv),
                  .bias = attention.parameter(name + ".bias", {d}, starts.qkv_bias),
                  .output = attention.activation(name + ".output", "qkv.output")};
  };
  key_ = projection("k_proj");
  value_ = projection("v_proj");
  query_ = projection("q_proj");
  out_ = Linear::build(attention, "out_proj", groups::kAttention, d, d, starts.out, init::zeros());
  attention_norm_ = LayerNorm::build(scope, "self_attn_layer_norm", d);
  fc1_ = Linear::build(scope, "fc1", groups::kFfn, f, d, starts.fc1, starts.fc1_bias);
  fc2_ = Linear::build(scope, "fc2", groups::kFfn, d, f, starts.fc2, starts.fc2_bias);
  final_norm_ = LayerNorm::build(scope, "final_layer_norm", d);
}

TransformerLayer::TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayer& owner,
                                   const Scope& owner_scope)
    : TransformerLayer(owner) {
  first_site_ = (index + 1) * kSitesPerLayer;
  const Scope attention = scope.in("self_attn");
  attention_input_ = attention.activation("input");
  for (const auto& [linear, name] : {std::pair(&key_, "k_proj"), {&value_, "v_proj"}, {&query_, "q_proj"}})
    linear->output = attention.activation(std::string(name) + ".output", "qkv.output");
  out_ = owner.out_.again(attention, "out_proj");
  fc1_ = owner.fc1_.again(scope, "fc1");
  fc2_ = owner.fc2_.again(scope, "fc2");
  scope.share(owner_scope);
}

Unbiased TransformerLayer::self_attention(Tape& tape, const Var& x, const RowLayout& rows) const {
  const std::array<Weight*, 3> weights{query_.weight, key_.weight, value_.weight};
  const std::array<Var, 3> biases{query_.bias->var(tape), key_.bias->var(tape), value_.bias->var(tape)};
  const Var input = (*attention_input_)(tape, x);
  const Var qkv = projected(tape, linear_concat(tape, input, weights, biases, attention_input_->quantizer()));
  const Var heads = attend(tape, qkv, rows, options_, site(options_.attention_dropout, 0));
  return out_.without_bias(tape, heads);
}

Var TransformerLayer::projected(Tape& tape, const Var& qkv) const {
  const std::array<const ActivationPoint*, 3> places{query_.output, key_.output, value_.output};
  if (std::all_of(places.begin(), places.end(), [](const auto* place) { return place->quantizer() == nullptr; }))
    return qkv;
  std::array<Var, 3> parts;
  for (size_t i = 0; i < parts.size(); ++i)
    parts[i] = (*places[i])(tape, select_columns(tape, qkv, static_cast<int64_t>(i), std::ssize(parts)));
  return join_columns(tape, parts);
}

Unbiased TransformerLayer::feed_forward(Tape& tape, const Var& x) const {
  const Unbiased inner = fc1_.without_bias(tape, x);
  const Var hidden =
      activation_dropout(tape, inner.value, inner.bias, options_.activation, site(options_.activation_dropout, 1));
  return fc2_.without_bias(tape, hidden);
}

Var TransformerLayer::forward(Tape& tape, const Var& x, const RowLayout& rows) const {
  // The biases of both branches' last maps are added on the way into the residual sum.
  const auto add_attention = [&](const Var& residual, const Var& input) {
    const Unbiased branch = self_attention(tape, input, rows);
    return residual_dropout(tape, residual, branch.value, branch.bias, site(options_.dropout, 2));
  };
  const auto add_ffn = [&](const Var& residual, const Var& input) {
    const Unbiased branch = feed_forward(tape, input);
    return residual_dropout(tape, residual, branch.value, branch.bias, site(options_.dropout, 3));
  };
  if (options_.prenorm) {
    const Var y = add_attention(x, attention_norm_(tape, x));
    return add_ffn(y, final_norm_(tape, y));
  }
  const Var y = attention_norm_(tape, add_attention(x, x));
  return final_norm_(tape, add_ffn(y, y));
}

}  // namespace qn
