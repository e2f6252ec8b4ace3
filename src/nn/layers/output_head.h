// From features to the loss of each position: plain softmax, or adaptive softmax with a head and tails (reference 5.6).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "nn/layers/token_embedding.h"

namespace qn {

/// x W^T for all these weights side by side, plus `bias` of a single one (or undefined), which is as wide as a
/// vocabulary: [N, logit_columns(tape, their rows)]. All heads over words make their logits here. `input` is where x
/// has passed.
Var word_logits(Tape& tape, const Var& x, std::span<Weight* const> weights, const Var& bias,
                const ActivationPoint& input);

class OutputHead {
 public:
  virtual ~OutputHead() = default;
  /// losses (f64 [N]) += -log p(targets[i]) for features x [N, width]; targets < 0 are skipped. `smoothing` of labels,
  /// see Kernels::cross_entropy, is for the plain softmax.
  virtual void losses(Tape& tape, const Var& x, std::span<const int32_t> targets, const Tensor& losses,
                      double smoothing) = 0;
  /// log p of every word: [N, vocabulary], in the parameters' type. For inspection; costs the whole vocabulary.
  virtual Tensor log_probabilities(Tape& tape, const Var& x) = 0;
};

/// `tied_to`: the token table that is the output matrix as well, or nullptr for a matrix of its own.
std::unique_ptr<OutputHead> make_softmax(const Scope& scope, int64_t vocabulary, int64_t width, Weight* tied_to);

struct AdaptiveSoftmaxOptions {
  double dropout = 0.0;
  const TokenEmbedding* tied_tables = nullptr;       ///< band tables are the output matrices as well
  const TokenEmbedding* tied_projections = nullptr;  ///< band projections are used in the opposite direction
};
std::unique_ptr<OutputHead> make_adaptive_softmax(const Scope& scope, const Bands& bands, int64_t width,
                                                  const AdaptiveSoftmaxOptions& options);

}  // namespace qn
