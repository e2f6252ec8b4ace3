#include "nn/layers/decoder_layer.h"

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
  return out_.without_bias(tape, heads);
}

Var DecoderLayer::feed_forward(Tape& tape, const Var& x) const {
  const Var hidden = activation_dropout(tape, fc1_.without_bias(tape, x), fc1_.bias->var(tape), options_.activation,
                                        site(options_.activation_dropout, 1));
  return fc2_.without_bias(tape, hidden);
}

Var DecoderLayer::forward(Tape& tape, const Var& x, int64_t batch, int64_t time) const {
  // The biases of both branches' last maps are added on the way into the residual sum.
  const auto add_attention = [&](const Var& residual, const Var& input) {
    return residual_dropout(tape, residual, self_attention(tape, input, batch, time), out_.bias->var(tape),
                            site(options_.dropout, 2));
  };
  const auto add_ffn = [&](const Var& residual, const Var& input) {
    return residual_dropout(tape, residual, feed_forward(tape, input), fc2_.bias->var(tape), site(options_.dropout, 3));
  };
  if (options_.prenorm) {
    const Var y = add_attention(x, attention_norm_(tape, x));
    return add_ffn(y, final_norm_(tape, y));
  }
  const Var y = attention_norm_(tape, add_attention(x, x));
  return final_norm_(tape, add_ffn(y, y));
}

}  // namespace qn
