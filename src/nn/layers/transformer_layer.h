// One Transformer block: self-attention, in decoders attention to an encoder, and feed-forward, with residual
// connections (reference 5.3).
#pragma once

#include <initializer_list>
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
  bool cross_attention = false;  ///< there is an encoder to attend to
  LayerInit init = LayerInit::fairseq;
  double norm_eps = kNormEps;
};

/// `batch` sequences of `time` rows each, one behind another.
struct EqualSequences {
  int64_t batch = 0, time = 0;
};
/// What the rows of a matrix are.
using RowLayout = std::variant<EqualSequences, Sequences>;

/// Rows that are all that is asked of a layer, in the order of their sequences.
struct WantedRows {
  std::span<const int32_t> rows;  ///< negative ones, behind the others, are rows of nothing
  Sequences sequences;            ///< which of `rows` belong to each sequence
};

/// What a decoder attends to: an encoder's result. Sequence i of the decoder's rows sees sequence i.
struct Encoded {
  Var states;  ///< [rows of the sentences, width]
  Sequences sentences;
};

/// What a layer keeps while it decodes token by token: keys and values (k | v).
struct DecodingMemory {
  Tensor own;      ///< of the tokens so far, [places, 2 width]
  Tensor encoded;  ///< of the encoder's result; undefined without one
};

/// The next token of several hypotheses. A hypothesis has a run of places in DecodingMemory::own.
struct DecodingStep {
  Sequences tokens;                 ///< row i is a sequence of its own: the next token of hypothesis i
  std::span<const int32_t> places;  ///< of the next tokens
  Sequences places_so_far;          ///< of each hypothesis, that of the next token included
  Sequences hypotheses;             ///< rows that belong to sentence i of the encoder's
  Sequences sentences;              ///< places in DecodingMemory::encoded
};

class TransformerLayer {
 public:
  /// `index` tells the dropout masks of the layers apart.
  TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayerOptions& options);
  /// A layer with the weights and parameters of `owner`, which is below `owner_scope`. Dropout masks and places of
  /// activations are its own.
  TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayer& owner, const Scope& owner_scope);

  /// x [rows, width] -> the same shape. With cross-attention `encoded` is needed, and rows are Sequences.
  Var forward(Tape& tape, const Var& x, const RowLayout& rows, const Encoded* encoded = nullptr) const;
  /// The same without cross-attention, in place and in the memory of some rows' activations beside queries, keys and
  /// values. For passes that may_work_in_parts(); the values of weights that the pass has computed so far are
  /// forgotten.
  void update(Tape& tape, const Tensor& x, const EqualSequences& rows) const;
  /// The same of some rows only, without cross-attention: x [rows, width] -> [wanted rows, width]. Every row is a key,
  /// but queries and all that comes behind attention are of wanted rows.
  Var forward(Tape& tape, const Var& x, const Sequences& sequences, const WantedRows& wanted) const;
  /// The same for one row x [hypotheses, width] of each hypothesis, the rows before it being remembered. For passes
  /// that record no gradient.
  Var step(Tape& tape, const Var& x, const DecodingStep& step, const DecodingMemory& memory) const;
  /// Keys and values of an encoder's result, for DecodingMemory::encoded.
  Var encoded_keys(Tape& tape, const Var& states) const;

 private:
  /// The maps of an attention.
  struct Attention {
    ActivationPoint *query_input, *key_input;  // what queries, and what keys and values are made of
    Linear query, key, value, out;

    static Attention build(const Scope& scope, const char* group, bool cross, const TransformerLayerOptions& options);
    /// The same maps once more, between places of their own.
    Attention again(const Scope& scope, bool cross) const;
    /// q, k | v, or all three of one input.
    Var queries(Tape& tape, const Var& x) const { return projected(tape, x, query_input, {&query}); }
    Var keys(Tape& tape, const Var& x) const { return projected(tape, x, key_input, {&key, &value}); }
    Var all(Tape& tape, const Var& x) const { return projected(tape, x, query_input, {&query, &key, &value}); }

   private:
    void place(const Scope& scope, bool cross);
    /// Results of maps side by side, behind their places.
    static Var projected(Tape& tape, const Var& x, const ActivationPoint* input,
                         std::initializer_list<const Linear*> maps);
  };
  /// The block around its attentions: each gives, of its input, heads side by side.
  /// What the branch of a norm is computed from, and what becomes of its result; `number` is its dropout site.
  Var before(Tape& tape, const LayerNorm& norm, const Var& x) const { return options_.prenorm ? norm(tape, x) : x; }
  Var added(Tape& tape, const LayerNorm& norm, uint64_t number, const Var& x, const Unbiased& branch) const;
  template <typename Own, typename Cross>
  Var around(Tape& tape, const Var& x, const Own& own, const Cross& cross) const;
  Unbiased feed_forward(Tape& tape, const Var& x) const;  // without the bias of its last map
  Dropout site(double p, uint64_t number) const { return {p, first_site_ + number}; }

  TransformerLayerOptions options_;
  uint64_t first_site_;
  Attention own_, cross_;  // cross_ only where there is an encoder
  Linear fc1_, fc2_;
  LayerNorm attention_norm_, cross_norm_, final_norm_;
};

/// Dropout sites 0..15 belong to the model's ends, then 16 per layer.
inline constexpr uint64_t kSitesPerLayer = 16;

}  // namespace qn
