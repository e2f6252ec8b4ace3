// RoBERTa and BERT: a bidirectional encoder with a masked-LM head, a head that classifies sentences, both or none
// (reference 5.8; Devlin et al. 2018). They differ in what model_config.cpp lists: BERT adds a vector for each token's
// type (first or second sentence), its norms have a smaller eps, and it has no dropout before its pooler.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/model_config.h"
#include "models/pooling.h"
#include "nn/layers/encoder_heads.h"
#include "nn/layers/positions.h"
#include "nn/layers/token_embedding.h"
#include "nn/layers/transformer_stack.h"

namespace qn {

/// Sentences one behind another; there is no padding.
struct SentenceBatch {
  std::span<const int32_t> tokens;
  Sequences sentences;  ///< that `tokens` are
  /// Of each token: 0 in first, 1 in second sentences. Models without types do not look; empty: 0.
  std::span<const int32_t> types = {};
};

struct EncoderHeads {
  bool masked_lm = false;
  int64_t classes = 0;  ///< of the classification head; 0: there is none. Targets of a regression likewise
};

class SentenceEncoder : public Module {
 public:
  /// `config` is resolved: no zero dimensions.
  SentenceEncoder(const ModelConfig& config, int64_t vocabulary, const EncoderHeads& heads);

  /// [tokens, width]. `inner_states`, if given, receives the state after the embedding and after each layer that runs.
  Var features(Tape& tape, const SentenceBatch& batch, std::vector<Tensor>* inner_states = nullptr);
  /// Of every word in the place of the tokens `rows`, which ascend (negative ones behind them: of nothing):
  /// [rows.size(), logit_columns(tape, vocabulary)].
  Var masked_logits(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows);
  /// Natural-log loss of these rows (f64 [rows.size()], 0 where the target is negative); registers the backward of
  /// their sum on the tape.
  Tensor masked_losses(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows,
                       std::span<const int32_t> targets);
  /// Of every class, for every sentence: [sentences, classes].
  Var sentence_logits(Tape& tape, const SentenceBatch& batch);
  /// A vector of length 1 for every sentence: [sentences, width].
  Var sentence_vectors(Tape& tape, const SentenceBatch& batch, Pooling pooling);

  int64_t max_positions() const { return config_.max_positions; }
  int64_t width() const { return config_.embed_dim; }
  LayerDrop& layer_drop() { return layers_->layer_drop(); }

 private:
  Var embed(Tape& tape, const SentenceBatch& batch);
  /// features() of rows that ascend: what the last layer does behind attention, it does for these only.
  Var features_of(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows);
  Var add_types(Tape& tape, const Var& x, const SentenceBatch& batch) const;

  ModelConfig config_;
  std::unique_ptr<TokenEmbedding> embedding_;
  std::unique_ptr<Positions> positions_;
  Parameter* types_ = nullptr;  // [types, width], where there are any
  std::optional<LayerNorm> embedding_norm_, final_norm_;
  std::optional<Linear> noise_projection_;
  std::unique_ptr<TransformerStack> layers_;
  std::optional<MaskedLmHead> masked_lm_;
  std::optional<ClassificationHead> classification_;
  std::vector<int32_t> wanted_begins_, wanted_lengths_;  // of the pass under way
  std::vector<float> averaging_;                         // what sentence_vectors() has given its pass
};

/// The model of a configuration; parameters have shapes but no memory yet. `default_positions` is used when the
/// configuration does not say how many positions there are.
std::unique_ptr<SentenceEncoder> make_sentence_encoder(const ModelConfig& config, int64_t vocabulary,
                                                       int64_t default_positions, const EncoderHeads& heads);

}  // namespace qn
