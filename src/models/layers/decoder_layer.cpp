#include "models/layers/decoder_layer.h"

#include <array>
#include <numbers>

namespace qn {

DecoderLayer::DecoderLayer(const Build& build, const std::string& prefix, uint64_t index,
                           const DecoderLayerOptions& options)
    : options_(options), first_site_((index + 1) * kSitesPerLayer) {
  const int64_t d = options.width, f = options.ffn;
  const auto projection = [&](const char* name, double gain, InitRule bias) {
    const std::string path = prefix + ".self_attn." + name;
    return Linear{build.linear(path + ".weight", groups::kAttention, d, d, init::xavier(d, d, gain)),
                  build.store.add(path + ".bias", {d}, bias)};
  };
  constexpr double kGain = std::numbers::sqrt2 / 2;
  key_ = projection("k_proj", kGain, init::fan_in(d));
  value_ = projection("v_proj", kGain, init::fan_in(d));
  query_ = projection("q_proj", kGain, init::fan_in(d));
  out_ = projection("out_proj", 1.0, init::zeros());
  attention_norm_ = LayerNorm::build(build, prefix + ".self_attn_layer_norm", d);
  const auto dense = [&](const char* name, int64_t out, int64_t in) {
    const std::string path = prefix + "." + name;
    return Linear{build.linear(path + ".weight", groups::kFfn, out, in, init::fan_in(in)),
                  build.store.add(path + ".bias", {out}, init::fan_in(in))};
  };
  fc1_ = dense("fc1", f, d);
  fc2_ = dense("fc2", d, f);
  final_norm_ = LayerNorm::build(build, prefix + ".final_layer_norm", d);
}

Var DecoderLayer::self_attention(Tape& tape, const Var& x, int64_t batch, int64_t time) const {
  const std::array<Var, 3> weights{query_.weight->value(tape), key_.weight->value(tape), value_.weight->value(tape)};
  const std::array<Var, 3> biases{query_.bias->var(tape), key_.bias->var(tape), value_.bias->var(tape)};
  const Var qkv = linear_concat(tape, x, weights, biases);
  const Var heads = attention(tape, qkv, batch, time, options_.heads, true, site(options_.attention_dropout, 0));
  return out_(tape, heads);
}

Var DecoderLayer::feed_forward(Tape& tape, const Var& x) const {
  const Var hidden = activation_dropout(tape, fc1_(tape, x), options_.activation, site(options_.activation_dropout, 1));
  return fc2_(tape, hidden);
}

Var DecoderLayer::forward(Tape& tape, const Var& x, int64_t batch, int64_t time) const {
  const Dropout after_attention = site(options_.dropout, 2), after_ffn = site(options_.dropout, 3);
  if (options_.prenorm) {
    const Var y =
        residual_dropout(tape, x, self_attention(tape, attention_norm_(tape, x), batch, time), after_attention);
    return residual_dropout(tape, y, feed_forward(tape, final_norm_(tape, y)), after_ffn);
  }
  const Var y = attention_norm_(tape, residual_dropout(tape, x, self_attention(tape, x, batch, time), after_attention));
  return final_norm_(tape, residual_dropout(tape, y, feed_forward(tape, y), after_ffn));
}

}  // namespace qn
