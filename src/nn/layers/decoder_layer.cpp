#include "nn/layers/decoder_layer.h"

#include <algorithm>
#include <array>
#include <numbers>
#include <utility>

namespace qn {

DecoderLayer::DecoderLayer(const Scope& scope, uint64_t index, const DecoderLayerOptions& options)
    : options_(options), first_site_((index + 1) * kSitesPerLayer) {
  const int64_t d = options.width, f = options.ffn;
  const Scope attention = scope.in("self_attn");
  attention_input_ = attention.activation("input");
  const auto projection = [&](const std::string& name, double gain, InitRule bias) {
    return Linear{.weight = attention.linear(name + ".weight", groups::kAttention, d, d, init::xavier(d, d, gain)),
                  .bias = attention.parameter(name + ".bias", {d}, bias),
                  .output = attention.activation(name + ".output", "qkv.output")};
  };
  constexpr double kGain = std::numbers::sqrt2 / 2;
  key_ = projection("k_proj", kGain, init::fan_in(d));
  value_ = projection("v_proj", kGain, init::fan_in(d));
  query_ = projection("q_proj", kGain, init::fan_in(d));
  out_ = Linear::build(attention, "out_proj", groups::kAttention, d, d, init::xavier(d, d), init::zeros());
  attention_norm_ = LayerNorm::build(scope, "self_attn_layer_norm", d);
  fc1_ = Linear::build(scope, "fc1", groups::kFfn, f, d, init::fan_in(d), init::fan_in(d));
  fc2_ = Linear::build(scope, "fc2", groups::kFfn, d, f, init::fan_in(f), init::fan_in(f));
  final_norm_ = LayerNorm::build(scope, "final_layer_norm", d);
}

DecoderLayer::DecoderLayer(const Scope& scope, uint64_t index, const DecoderLayer& owner, const Scope& owner_scope)
    : DecoderLayer(owner) {
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

Unbiased DecoderLayer::self_attention(Tape& tape, const Var& x, int64_t batch, int64_t time) const {
  const std::array<Weight*, 3> weights{query_.weight, key_.weight, value_.weight};
  const std::array<Var, 3> biases{query_.bias->var(tape), key_.bias->var(tape), value_.bias->var(tape)};
  const Var input = (*attention_input_)(tape, x);
  const Var qkv = projected(tape, linear_concat(tape, input, weights, biases, attention_input_->quantizer()));
  const Var heads = attention(tape, qkv, batch, time, options_.heads, true, site(options_.attention_dropout, 0));
  return out_.without_bias(tape, heads);
}

Var DecoderLayer::projected(Tape& tape, const Var& qkv) const {
  const std::array<const ActivationPoint*, 3> places{query_.output, key_.output, value_.output};
  if (std::all_of(places.begin(), places.end(), [](const auto* place) { return place->quantizer() == nullptr; }))
    return qkv;
  std::array<Var, 3> parts;
  for (size_t i = 0; i < parts.size(); ++i)
    parts[i] = (*places[i])(tape, select_columns(tape, qkv, static_cast<int64_t>(i), std::ssize(parts)));
  return join_columns(tape, parts);
}

Unbiased DecoderLayer::feed_forward(Tape& tape, const Var& x) const {
  const Unbiased inner = fc1_.without_bias(tape, x);
  const Var hidden =
      activation_dropout(tape, inner.value, inner.bias, options_.activation, site(options_.activation_dropout, 1));
  return fc2_.without_bias(tape, hidden);
}

Var DecoderLayer::forward(Tape& tape, const Var& x, int64_t batch, int64_t time) const {
  // The biases of both branches' last maps are added on the way into the residual sum.
  const auto add_attention = [&](const Var& residual, const Var& input) {
    const Unbiased branch = self_attention(tape, input, batch, time);
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
