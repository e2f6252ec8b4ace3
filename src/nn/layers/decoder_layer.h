// One Transformer block: causal self-attention and feed-forward with residual connections (reference 5.3).
#pragma once

#include "nn/layers/linear.h"

namespace qn {

struct DecoderLayerOptions {
  int64_t width, ffn, heads;
  double dropout, attention_dropout, activation_dropout;
  Activation activation;
  bool prenorm;
};

class DecoderLayer {
 public:
  /// `index` tells the dropout masks of the layers apart.
  DecoderLayer(const Scope& scope, uint64_t index, const DecoderLayerOptions& options);
  /// A layer with the weights and parameters of `owner`, which is below `owner_scope`. Dropout masks and places of
  /// activations are its own.
  DecoderLayer(const Scope& scope, uint64_t index, const DecoderLayer& owner, const Scope& owner_scope);

  /// x [batch * time, width] -> the same shape.
  Var forward(Tape& tape, const Var& x, int64_t batch, int64_t time) const;

 private:
  /// Both without the bias of their last map.
  Unbiased self_attention(Tape& tape, const Var& x, int64_t batch, int64_t time) const;
  Unbiased feed_forward(Tape& tape, const Var& x) const;
  /// q | k | v behind their places.
  Var projected(Tape& tape, const Var& qkv) const;
  Dropout site(double p, uint64_t number) const { return {p, first_site_ + number}; }

  DecoderLayerOptions options_;
  uint64_t first_site_;
  ActivationPoint* attention_input_;  // what q, k and v are made of
  Linear query_, key_, value_, out_, fc1_, fc2_;
  LayerNorm attention_norm_, final_norm_;
};

/// Dropout sites 0..15 belong to the model's ends, then 16 per layer.
inline constexpr uint64_t kSitesPerLayer = 16;

}  // namespace qn
