// Decoder-only Transformer language model with fairseq's semantics (reference 5.2 - 5.7).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/language_model.h"
#include "nn/layers/output_head.h"
#include "nn/layers/positions.h"
#include "nn/layers/token_embedding.h"
#include "nn/layers/transformer_stack.h"

namespace qn {

class TransformerLm : public LanguageModel {
 public:
  /// `config` is resolved: no zero dimensions.
  TransformerLm(const ModelConfig& config, int64_t vocabulary);

  Tensor losses(Tape& tape, const TokenBatch& batch) override;
  int64_t max_positions() const override { return config_.max_positions; }

  /// [rows * cols, output width]. `inner_states`, if given, receives the state after the embedding sum and after each
  /// layer that runs.
  Var features(Tape& tape, const TokenBatch& batch, std::vector<Tensor>* inner_states = nullptr);
  OutputHead& head() { return *head_; }
  Positions& positions() { return *positions_; }
  LayerDrop& layer_drop() { return layers_->layer_drop(); }

 private:
  Var embed(Tape& tape, const TokenBatch& batch);

  ModelConfig config_;
  std::unique_ptr<TokenEmbedding> embedding_;
  std::optional<Linear> noise_projection_, project_in_, project_out_;
  std::unique_ptr<Positions> positions_;
  std::unique_ptr<TransformerStack> layers_;
  std::optional<LayerNorm> final_norm_;
  std::unique_ptr<OutputHead> head_;
};

}  // namespace qn
