// Encoder-decoder Transformer (fairseq's `transformer`): an encoder reads a sentence, a decoder that attends to it
// writes another one.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/model_config.h"
#include "nn/layers/output_head.h"
#include "nn/layers/positions.h"
#include "nn/layers/token_embedding.h"
#include "nn/layers/transformer_stack.h"

namespace qn {

/// Pairs of sentences, of each side one behind another; there is no padding.
struct PairBatch {
  std::span<const int32_t> source;    ///< each with its end mark
  Sequences sources;                  ///< that `source` is
  std::span<const int32_t> previous;  ///< what the decoder reads: the end mark, then the target without its last token
  std::span<const int32_t> target;    ///< each with its end mark; may be empty where only features are wanted
  Sequences targets;                  ///< that `target` and `previous` are
};

class Seq2Seq : public Module {
 public:
  /// `config` is resolved: no zero dimensions.
  Seq2Seq(const ModelConfig& config, int64_t source_vocabulary, int64_t target_vocabulary);

  /// The encoder's states of all source tokens. `inner_states`, here and below, receives the state after the embedding
  /// and after each layer that runs.
  Encoded encode(Tape& tape, std::span<const int32_t> source, const Sequences& sources,
                 std::vector<Tensor>* inner_states = nullptr);
  /// [target tokens, width]
  Var features(Tape& tape, const PairBatch& batch, const Encoded& encoded, std::vector<Tensor>* inner_states = nullptr);
  /// The loss of every target token (f64 [target tokens]), -log p unless labels are smoothed
  /// (Kernels::cross_entropy); registers the backward of their sum on the tape.
  Tensor losses(Tape& tape, const PairBatch& batch, double smoothing);

  /// Features of the next token of every hypothesis, for decoding token by token. `positions` are those of the tokens,
  /// counted from 0; see TransformerLayer::step().
  Var step(Tape& tape, std::span<const int32_t> tokens, std::span<const int32_t> positions, const DecodingStep& step,
           std::span<const DecodingMemory> memories);

  const TransformerStack& decoder() const { return *decoder_; }
  OutputHead& head() { return *head_; }
  int64_t width() const { return config_.embed_dim; }
  int64_t max_positions() const { return config_.max_positions; }
  int64_t target_vocabulary() const { return target_vocabulary_; }
  /// Tests compare against stored tables.
  void set_sinusoids(std::span<const float> table);

 private:
  double scale() const;

  ModelConfig config_;
  int64_t target_vocabulary_;
  std::unique_ptr<TokenEmbedding> source_embedding_, own_target_embedding_;
  TokenEmbedding* target_embedding_;
  std::optional<Linear> source_noise_, target_noise_;
  std::unique_ptr<Positions> source_positions_, target_positions_;
  std::unique_ptr<TransformerStack> encoder_, decoder_;
  std::optional<LayerNorm> encoder_norm_, decoder_norm_;
  std::unique_ptr<OutputHead> head_;
};

/// The model of a configuration; parameters have shapes but no memory yet. Throws qn::UsageError when embeddings are to
/// be shared by vocabularies of different sizes.
std::unique_ptr<Seq2Seq> make_seq2seq(const ModelConfig& config, int64_t source_vocabulary, int64_t target_vocabulary);

}  // namespace qn
