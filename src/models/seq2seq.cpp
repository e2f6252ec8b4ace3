#include "models/seq2seq.h"

#include <cmath>

namespace qn {
namespace {

constexpr uint64_t kSourceSite = 0, kTargetSite = 1;  // dropout sites behind the embeddings
constexpr int64_t kDefaultPositions = 1024;

TransformerStackOptions stack_options(const ModelConfig& config, bool decoder) {
  return {.layer = {.width = config.embed_dim,
                    .ffn = decoder ? config.ffn_dim : config.encoder_ffn_dim,
                    .heads = config.heads,
                    .dropout = config.dropout,
                    .attention_dropout = config.attention_dropout,
                    .activation_dropout = config.activation_dropout,
                    .activation = config.activation,
                    .prenorm = config.prenorm,
                    .causal = decoder,
                    .cross_attention = decoder},
          .layers = decoder ? config.layers : config.encoder_layers,
          .share_layers = config.share_layers,
          .layerdrop = config.layerdrop,
          .first_index = decoder ? config.encoder_layers : 0};
}

}  // namespace

Seq2Seq::Seq2Seq(const ModelConfig& config, int64_t source_vocabulary, int64_t target_vocabulary)
    : config_(config), target_vocabulary_(target_vocabulary) {
  const int64_t d = config.embed_dim;
  const Scope encoder = root().in("encoder"), decoder = root().in("decoder");
  const auto noise = [&](const Scope& scope) {
    return Linear::build(scope, "quant_noise", groups::kEmbeddingProjection, d, d, init::fan_in(d), std::nullopt);
  };
  const auto positions = [&](const Scope& scope) {
    return std::make_unique<Positions>(scope, d, config.max_positions, config.learned_positions);
  };
  source_embedding_ = std::make_unique<TokenEmbedding>(encoder, source_vocabulary, d);
  source_positions_ = positions(encoder);
  if (config.noise_projection) source_noise_ = noise(encoder);
  encoder_ = std::make_unique<TransformerStack>(encoder, stack_options(config, false));
  if (config.prenorm) encoder_norm_ = LayerNorm::build(encoder, "layer_norm", d);

  target_embedding_ = source_embedding_.get();
  if (!config.share_all_embeddings) {
    own_target_embedding_ = std::make_unique<TokenEmbedding>(decoder, target_vocabulary, d);
    target_embedding_ = own_target_embedding_.get();
  }
  target_positions_ = positions(decoder);
  if (config.noise_projection) target_noise_ = noise(decoder);
  decoder_ = std::make_unique<TransformerStack>(decoder, stack_options(config, true));
  if (config.prenorm) decoder_norm_ = LayerNorm::build(decoder, "layer_norm", d);
  head_ =
      make_softmax(decoder, target_vocabulary, d,
                   config.share_all_embeddings || config.share_input_output ? target_embedding_->table(0) : nullptr);
}

double Seq2Seq::scale() const {
  return config_.scale_embedding ? std::sqrt(static_cast<double>(config_.embed_dim)) : 1.0;
}

Encoded Seq2Seq::encode(Tape& tape, std::span<const int32_t> source, const Sequences& sources,
                        std::vector<Tensor>* inner_states) {
  Var x = source_positions_->forward(tape, source_embedding_->forward(tape, source, scale()), sources);
  x = dropout(tape, x, {config_.dropout, kSourceSite});
  if (source_noise_) x = (*source_noise_)(tape, x);
  x = encoder_->forward(tape, x, sources, inner_states);
  return {encoder_norm_ ? (*encoder_norm_)(tape, x) : x, sources};
}

Var Seq2Seq::features(Tape& tape, const PairBatch& batch, const Encoded& encoded, std::vector<Tensor>* inner_states) {
  Var x = target_embedding_->forward(tape, batch.previous, scale());
  if (target_noise_) x = (*target_noise_)(tape, x);  // unlike the encoder's, before the positions
  x = target_positions_->forward(tape, x, batch.targets);
  x = dropout(tape, x, {config_.dropout, kTargetSite});
  x = decoder_->forward(tape, x, batch.targets, inner_states, &encoded);
  return decoder_norm_ ? (*decoder_norm_)(tape, x) : x;
}

Tensor Seq2Seq::losses(Tape& tape, const PairBatch& batch, double smoothing) {
  const Encoded encoded = encode(tape, batch.source, batch.sources);
  const Var x = features(tape, batch, encoded);
  const Tensor result = tape.arena.tensor({x.value.rows()}, DType::f64);
  tape.k.fill(result, 0.0);
  head_->losses(tape, x, batch.target, result, smoothing);
  return result;
}

Var Seq2Seq::step(Tape& tape, std::span<const int32_t> tokens, std::span<const int32_t> positions,
                  const DecodingStep& step, std::span<const DecodingMemory> memories) {
  Var x = target_embedding_->forward(tape, tokens, scale());
  if (target_noise_) x = (*target_noise_)(tape, x);
  x = target_positions_->at(tape, x, positions);
  x = decoder_->step(tape, x, step, memories);
  return decoder_norm_ ? (*decoder_norm_)(tape, x) : x;
}

void Seq2Seq::set_sinusoids(std::span<const float> table) {
  source_positions_->set_sinusoids(table);
  target_positions_->set_sinusoids(table);
}

std::unique_ptr<Seq2Seq> make_seq2seq(const ModelConfig& config, int64_t source_vocabulary, int64_t target_vocabulary) {
  QN_ASSERT(config.type == ModelType::transformer);
  QN_CHECK_USAGE(!config.share_all_embeddings || source_vocabulary == target_vocabulary,
                 "model.share_all_embeddings needs one dictionary for both languages; these have {} and {} words: "
                 "prepare the data with a joined dictionary, or set model.share_all_embeddings: false",
                 source_vocabulary, target_vocabulary);
  ModelConfig resolved = config;
  if (resolved.max_positions == 0) resolved.max_positions = kDefaultPositions;
  if (resolved.encoder_layers == 0) resolved.encoder_layers = resolved.layers;
  if (resolved.encoder_ffn_dim == 0) resolved.encoder_ffn_dim = resolved.ffn_dim;
  return std::make_unique<Seq2Seq>(resolved, source_vocabulary, target_vocabulary);
}

}  // namespace qn
