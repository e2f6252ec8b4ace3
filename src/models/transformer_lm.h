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
  /// Features of the next tokens of hypotheses, for going on token by token. `positions` are those of the tokens,
  /// counted from 0; see TransformerLayer::step().
  Var step(Tape& tape, std::span<const int32_t> tokens, std::span<const int32_t> positions, const DecodingStep& step,
           std::span<const DecodingMemory> memories);
  OutputHead& head() { return *head_; }
  const TransformerStack& layers() const { return *layers_; }
  /// One token of every frequency band of the adaptive input: all that a pass may look up.
  std::vector<int32_t> token_of_every_band() const;
  int64_t width() const { return config_.embed_dim; }
  Positions& positions() { return *positions_; }
  LayerDrop& layer_drop() { return layers_->layer_drop(); }

 private:
  Var embed_tokens(Tape& tape, std::span<const int32_t> tokens);
  Var embed(Tape& tape, const TokenBatch& batch);
  Var finish(Tape& tape, Var x);
  Var features_for_losses(Tape& tape, const TokenBatch& batch);

  ModelConfig config_;
  std::unique_ptr<TokenEmbedding> embedding_;
  std::optional<Linear> noise_projection_, project_in_, project_out_;
  std::unique_ptr<Positions> positions_;
  std::unique_ptr<TransformerStack> layers_;
  std::optional<LayerNorm> final_norm_;
  std::unique_ptr<OutputHead> head_;
};

}  // namespace qn
