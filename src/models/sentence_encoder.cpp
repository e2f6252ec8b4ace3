#include "models/sentence_encoder.h"

#include <algorithm>

#include "core/special_tokens.h"

namespace qn {

SentenceEncoder::SentenceEncoder(const ModelConfig& config, int64_t vocabulary, const EncoderHeads& heads)
    : config_(config) {
  const Scope scope = root().in("encoder").in("sentence_encoder");
  const int64_t d = config.embed_dim;
  embedding_ = std::make_unique<TokenEmbedding>(scope, vocabulary, d, kBertDeviation);
  positions_ = std::make_unique<Positions>(scope, d, config.max_positions, true, kBertDeviation);
  if (config.token_types > 0)
    types_ = scope.parameter("segment_embeddings.weight", {config.token_types, d}, init::normal(kBertDeviation));
  if (!config.prenorm) embedding_norm_ = LayerNorm::build(scope, "layernorm_embedding", d, config.norm_eps);
  if (config.noise_projection)
    noise_projection_ = Linear::build(scope, "quant_noise", groups::kEmbeddingProjection, d, d,
                                      init::normal(kBertDeviation), std::nullopt);
  layers_ = std::make_unique<TransformerStack>(
      scope, TransformerStackOptions{.layer = {.width = d,
                                               .ffn = config.ffn_dim,
                                               .heads = config.heads,
                                               .dropout = config.dropout,
                                               .attention_dropout = config.attention_dropout,
                                               .activation_dropout = config.activation_dropout,
                                               .activation = config.activation,
                                               .prenorm = config.prenorm,
                                               .causal = false,
                                               .init = LayerInit::bert,
                                               .norm_eps = config.norm_eps},
                                     .layers = config.layers,
                                     .share_layers = config.share_layers,
                                     .layerdrop = config.layerdrop});
  if (config.prenorm) final_norm_ = LayerNorm::build(scope, "layer_norm", d, config.norm_eps);
  if (heads.masked_lm)
    masked_lm_.emplace(root().in("encoder").in("lm_head"), vocabulary, d, config.activation,
                       config.untie_output ? nullptr : embedding_->table(0), config.norm_eps);
  if (heads.classes > 0)
    classification_.emplace(
        root().in("classification_heads").in("sentence_classification_head"), d, config.pooler_dim, heads.classes,
        ClassificationHead::Rates{.features = config.type == ModelType::bert ? 0.0 : config.pooler_dropout,
                                  .inner = config.pooler_dropout});
}

Var SentenceEncoder::add_types(Tape& tape, const Var& x, const SentenceBatch& batch) const {
  const std::vector<int32_t> first(batch.types.empty() ? batch.tokens.size() : 0, 0);
  const std::span<const int32_t> types = batch.types.empty() ? std::span<const int32_t>(first) : batch.types;
  QN_CHECK(*std::max_element(types.begin(), types.end()) < types_->shape[0],
           "this model has no type for second sentences (model.token_types: {}): it takes single ones",
           types_->shape[0]);
  return add_positions(tape, x, types_->var(tape), types, -1);
}

Var SentenceEncoder::embed(Tape& tape, const SentenceBatch& batch) {
  Var x = positions_->forward(tape, embedding_->forward(tape, batch.tokens, 1.0), batch.sentences);
  if (types_ != nullptr) x = add_types(tape, x, batch);
  if (embedding_norm_) x = (*embedding_norm_)(tape, x);
  x = dropout(tape, x, {config_.dropout, kEmbeddingSite});
  return noise_projection_ ? (*noise_projection_)(tape, x) : x;
}

Var SentenceEncoder::features(Tape& tape, const SentenceBatch& batch, std::vector<Tensor>* inner_states) {
  const Var x = layers_->forward(tape, embed(tape, batch), batch.sentences, inner_states);
  return final_norm_ ? (*final_norm_)(tape, x) : x;
}

Var SentenceEncoder::features_of(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows) {
  const Sequences& sentences = batch.sentences;
  wanted_begins_.clear();
  wanted_lengths_.clear();
  size_t next = 0;
  for (int64_t i = 0; i < sentences.count(); ++i) {
    const auto s = static_cast<size_t>(i);
    wanted_begins_.push_back(static_cast<int32_t>(next));
    while (next < rows.size() && rows[next] >= sentences.begins[s] &&
           rows[next] < sentences.begins[s] + sentences.lengths[s])
      ++next;
    wanted_lengths_.push_back(static_cast<int32_t>(next) - wanted_begins_.back());
  }
  QN_ASSERT(std::all_of(rows.begin() + static_cast<std::ptrdiff_t>(next), rows.end(), [](int32_t r) { return r < 0; }),
            "rows that do not ascend");
  // The longest run of rows is any number; that of the sentences hardly changes, and passes are recorded by shapes.
  const Var x = layers_->forward(tape, embed(tape, batch), sentences,
                                 WantedRows{rows, {wanted_begins_, wanted_lengths_, sentences.longest}});
  return final_norm_ ? (*final_norm_)(tape, x) : x;
}

Var SentenceEncoder::masked_logits(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows) {
  QN_ASSERT(masked_lm_, "built without a masked-LM head");
  return masked_lm_->logits(tape, features_of(tape, batch, rows));
}

Tensor SentenceEncoder::masked_losses(Tape& tape, const SentenceBatch& batch, std::span<const int32_t> rows,
                                      std::span<const int32_t> targets) {
  const Var logits = masked_logits(tape, batch, rows);
  const Tensor losses = tape.arena.tensor({logits.value.rows()}, DType::f64);
  tape.k.fill(losses, 0.0);
  cross_entropy(tape, losses, logits, masked_lm_->vocabulary(), targets, {});
  return losses;
}

Var SentenceEncoder::sentence_logits(Tape& tape, const SentenceBatch& batch) {
  QN_ASSERT(classification_, "built without a classification head");
  return classification_->logits(tape, features_of(tape, batch, batch.sentences.begins));
}

namespace {

/// [sentences, rows]: the product with a matrix of rows gives the mean of each sentence's.
std::vector<float> averaging(const Sequences& sentences, int64_t rows) {
  std::vector<float> shares(static_cast<size_t>(sentences.count() * rows), 0.0f);
  for (int64_t i = 0; i < sentences.count(); ++i) {
    const int32_t begin = sentences.begins[static_cast<size_t>(i)], length = sentences.lengths[static_cast<size_t>(i)];
    std::fill_n(shares.begin() + i * rows + begin, length, 1.0f / static_cast<float>(length));
  }
  return shares;
}

}  // namespace

Var SentenceEncoder::sentence_vectors(Tape& tape, const SentenceBatch& batch, Pooling pooling) {
  if (pooling == Pooling::cls) return normalize_rows(tape, features_of(tape, batch, batch.sentences.begins));
  const Var x = features(tape, batch);
  const int64_t rows = x.value.rows();
  averaging_ = averaging(batch.sentences, rows);
  return normalize_rows(tape, linear_transposed(tape, input(tape, averaging_, {batch.sentences.count(), rows}), x));
}

std::unique_ptr<SentenceEncoder> make_sentence_encoder(const ModelConfig& config, int64_t vocabulary,
                                                       int64_t default_positions, const EncoderHeads& heads) {
  QN_ASSERT(config.type == ModelType::roberta || config.type == ModelType::bert);
  ModelConfig resolved = config;
  if (resolved.max_positions == 0) resolved.max_positions = default_positions;
  if (resolved.pooler_dim == 0) resolved.pooler_dim = resolved.embed_dim;
  return std::make_unique<SentenceEncoder>(resolved, vocabulary, heads);
}

}  // namespace qn
