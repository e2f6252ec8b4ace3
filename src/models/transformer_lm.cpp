#include "models/transformer_lm.h"

#include <cmath>

#include "nn/layers/row_parts.h"

namespace qn {

TransformerLm::TransformerLm(const ModelConfig& config, int64_t vocabulary) : config_(config) {
  const Scope scope = root().in("decoder");
  const int64_t d = config.embed_dim;
  const AdaptiveConfig& adaptive = config.adaptive;
  if (adaptive.input)
    embedding_ = std::make_unique<TokenEmbedding>(
        scope, Bands(adaptive.cutoffs, vocabulary, config.input_dim, adaptive.factor), d);
  else
    embedding_ = std::make_unique<TokenEmbedding>(scope, vocabulary, config.input_dim);
  if (config.noise_projection)
    noise_projection_ = Linear::build(scope, "quant_noise", groups::kEmbeddingProjection, config.input_dim,
                                      config.input_dim, init::fan_in(config.input_dim), std::nullopt);
  if (!adaptive.input && config.input_dim != d)
    project_in_ = Linear::build(scope, "project_in_dim", groups::kEmbeddingProjection, d, config.input_dim,
                                init::xavier(d, config.input_dim), std::nullopt);
  positions_ = std::make_unique<Positions>(scope, d, config.max_positions, config.learned_positions);
  layers_ = std::make_unique<TransformerStack>(
      scope, TransformerStackOptions{.layer = {.width = d,
                                               .ffn = config.ffn_dim,
                                               .heads = config.heads,
                                               .dropout = config.dropout,
                                               .attention_dropout = config.attention_dropout,
                                               .activation_dropout = config.activation_dropout,
                                               .activation = config.activation,
                                               .prenorm = config.prenorm,
                                               .causal = true},
                                     .layers = config.layers,
                                     .share_layers = config.share_layers,
                                     .layerdrop = config.layerdrop});
  if (config.final_norm) final_norm_ = LayerNorm::build(scope, "layer_norm", d);
  if (config.output_dim != d && !adaptive.tie_weights)
    project_out_ = Linear::build(scope, "project_out_dim", groups::kSoftmax, config.output_dim, d,
                                 init::xavier(config.output_dim, d), std::nullopt);
  QN_CHECK(!config.share_input_output || config.input_dim == config.output_dim,
           "model.share_input_output needs equal input_dim and output_dim, got {} and {}", config.input_dim,
           config.output_dim);
  if (adaptive.softmax) {
    head_ = make_adaptive_softmax(scope, Bands(adaptive.cutoffs, vocabulary, config.output_dim, adaptive.factor),
                                  config.output_dim,
                                  {.dropout = adaptive.dropout,
                                   .tied_tables = adaptive.tie_weights ? embedding_.get() : nullptr,
                                   .tied_projections = adaptive.tie_projections ? embedding_.get() : nullptr});
  } else {
    head_ =
        make_softmax(scope, vocabulary, config.output_dim, config.share_input_output ? embedding_->table(0) : nullptr);
  }
}

Var TransformerLm::embed_tokens(Tape& tape, std::span<const int32_t> tokens) {
  const double scale = config_.scale_embedding ? std::sqrt(static_cast<double>(config_.embed_dim)) : 1.0;
  Var x = embedding_->forward(tape, tokens, scale);
  if (noise_projection_) x = (*noise_projection_)(tape, x);
  return project_in_ ? (*project_in_)(tape, x) : x;
}

Var TransformerLm::embed(Tape& tape, const TokenBatch& batch) {
  const Var x = positions_->forward(tape, embed_tokens(tape, batch.source), batch.source, batch.cols);
  return dropout(tape, x, {config_.dropout, kEmbeddingSite});
}

Var TransformerLm::features(Tape& tape, const TokenBatch& batch, std::vector<Tensor>* inner_states) {
  return finish(tape, layers_->forward(tape, embed(tape, batch), EqualSequences{batch.rows, batch.cols}, inner_states));
}

Var TransformerLm::step(Tape& tape, std::span<const int32_t> tokens, std::span<const int32_t> positions,
                        const DecodingStep& step, std::span<const DecodingMemory> memories) {
  return finish(tape, layers_->step(tape, positions_->at(tape, embed_tokens(tape, tokens), positions), step, memories));
}

std::vector<int32_t> TransformerLm::token_of_every_band() const {
  const std::optional<Bands>& bands = embedding_->bands();
  if (!bands) return {kEosId};
  std::vector<int32_t> tokens;
  for (int64_t band = 0; band < bands->count(); ++band) tokens.push_back(static_cast<int32_t>(bands->first(band)));
  return tokens;
}

/// What is behind the layers.
Var TransformerLm::finish(Tape& tape, Var x) {
  if (final_norm_) x = (*final_norm_)(tape, x);
  if (project_out_) x = (*project_out_)(tape, x);
  return x;
}

/// features(), in little memory where nothing needs what is in between.
Var TransformerLm::features_for_losses(Tape& tape, const TokenBatch& batch) {
  const bool watched = activations().observer() != nullptr;  // which would see more, and smaller, activations
  if (!may_work_in_parts(tape) || watched) return features(tape, batch);
  const Tensor x = tape.tensor({batch.rows * batch.cols, config_.embed_dim});
  {
    const ScratchScope scope(tape.arena);
    tape.k.copy(x, embed(tape, batch).value);
    tape.restart(tape.pass());
  }
  layers_->update(tape, x, EqualSequences{batch.rows, batch.cols});
  return finish(tape, {x, nullptr});
}

Tensor TransformerLm::losses(Tape& tape, const TokenBatch& batch) {
  const Tensor result = tape.arena.tensor({batch.rows * batch.cols}, DType::f64);
  tape.k.fill(result, 0.0);
  std::vector<int32_t> rows, targets;
  for (size_t i = 0; i < batch.target.size(); ++i) {
    if (batch.target[i] == kPadId) continue;
    rows.push_back(static_cast<int32_t>(i));
    targets.push_back(batch.target[i]);
  }
  const Var x = features_for_losses(tape, batch);
  if (rows.size() == batch.target.size()) {
    head_->losses(tape, x, targets, result, 0.0);
    return result;
  }
  // Padding and, in evaluation, context have no target: the softmax is spared for them.
  const Tensor compact = tape.arena.tensor({static_cast<int64_t>(rows.size())}, DType::f64);
  tape.k.fill(compact, 0.0);
  if (!rows.empty()) head_->losses(tape, select_rows(tape, x, rows), targets, compact, 0.0);
  tape.k.scatter_rows(result.reshaped({batch.rows * batch.cols, 1}), compact.reshaped({compact.elements(), 1}),
                      tape.upload(rows), 1.0);
  return result;
}

}  // namespace qn
