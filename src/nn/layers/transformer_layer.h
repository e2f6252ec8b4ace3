// One Transformer block: self-attention and feed-forward with residual connections (reference 5.3).
#pragma once

#include <variant>

#include "nn/layers/linear.h"
#include "ops/sequences.h"

namespace qn {

/// How the matrices and biases of a block start: as fairseq's translation and language models (reference 5.7), or as
/// BERT (5.8): N(0, 0.02), biases zero.
enum class LayerInit { fairseq, bert };

/// The standard deviation that BERT starts matrices and tables with.
inline constexpr double kBertDeviation = 0.02;

struct TransformerLayerOptions {
  int64_t width, ffn, heads;
  double dropout, attention_dropout, activation_dropout;
  Activation activation;
  bool prenorm;
  bool causal;
  LayerInit init = LayerInit::fairseq;
};

/// `batch` sequences of `time` rows each, one behind another.
struct EqualSequences {
  int64_t batch = 0, time = 0;
};
/// What the rows of a matrix are.
using RowLayout = std::variant<EqualSequences, Sequences>;

class TransformerLayer {
 public:
  /// `index` tells the dropout masks of the layers apart.
  TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayerOptions& options);
  /// A layer with the weights and parameters of `owner`, which is below `owner_scope`. Dropout masks and places of
  /// activations are its own.
  TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayer& owner, const Scope& owner_scope);

  /// x [rows, width] -> the same shape.
  Var forward(Tape& tape, const Var& x, const RowLayout& rows) const;

 private:
  /// Both without the bias of their last map.
  Unbiased self_attention(Tape& tape, const Var& x, const RowLayout& rows) const;
  Unbiased feed_forward(Tape& tape, const Var& x) const;
  /// q | k | v behind their places.
  Var projected(Tape& tape, const Var& qkv) const;
  Dropout site(double p, uint64_t number) const { return {p, first_site_ + number}; }

  TransformerLayerOptions options_;
  uint64_t first_site_;
  ActivationPoint* attention_input_;  // what q, k and v are made of
  Linear query_, key_, value_, out_, fc1_, fc2_;
  LayerNorm attention_norm_, final_norm_;
};

/// Dropout sites 0..15 belong to the model's ends, then 16 per layer.
inline constexpr uint64_t kSitesPerLayer = 16;

}  // namespace qn
