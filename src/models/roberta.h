// RoBERTa: a bidirectional encoder with a masked-LM head, a head that classifies sentences, or both (reference 5.8).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/model_config.h"
#include "nn/layers/encoder_heads.h"
#include "nn/layers/positions.h"
#include "nn/layers/token_embedding.h"
#include "nn/layers/transformer_stack.h"

namespace qn {

/// Sentences one behind another; there is no padding.
struct SentenceBatch {
  std::span<const int32_t> tokens;
  Sequences sentences;  ///< that `tokens` are
};

struct RobertaHeads {
  bool masked_lm = false;
  int64_t classes = 0;  ///< of the classification head; 0: there is none. Targets of a regression likewise
};

class Roberta : public Module {
 public:
  /// `config` is resolved: no zero dimensions.
  Roberta(const ModelConfig& config, int64_t vocabulary, const RobertaHeads& heads);

  /// [tokens, width]. `inner_states`, if given, receives the state after the embedding and after each layer that runs.
  Var features(Tape& tape, const SentenceBatch& batch, std::vector<Tensor>* inner_states = nullptr);
  /// Of every word in the place of the tokens `rows`, which ascend (negative ones behind them: of nothing):
  /// [rows.size(), vocabulary].
  Var masked_logits(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows);
  /// Of every class, for every sentence: [sentences, classes].
  Var sentence_logits(Tape& tape, const SentenceBatch& batch);

  int64_t max_positions() const { return config_.max_positions; }
  LayerDrop& layer_drop() { return layers_->layer_drop(); }

 private:
  Var embed(Tape& tape, const SentenceBatch& batch);
  /// features() of rows that ascend: what the last layer does behind attention, it does for these only.
  Var features_of(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows);

  ModelConfig config_;
  std::unique_ptr<TokenEmbedding> embedding_;
  std::unique_ptr<Positions> positions_;
  std::optional<LayerNorm> embedding_norm_, final_norm_;
  std::optional<Linear> noise_projection_;
  std::unique_ptr<TransformerStack> layers_;
  std::optional<MaskedLmHead> masked_lm_;
  std::optional<ClassificationHead> classification_;
  std::vector<int32_t> wanted_begins_, wanted_lengths_;  // of the pass under way
};

/// The model of a configuration; parameters have shapes but no memory yet. `default_positions` is used when the
/// configuration does not say how many positions there are.
std::unique_ptr<Roberta> make_roberta(const ModelConfig& config, int64_t vocabulary, int64_t default_positions,
                                      const RobertaHeads& heads);

}  // namespace qn
