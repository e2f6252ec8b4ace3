#include "models/seq2seq_tokens.h"

#include <algorithm>

namespace qn {

Seq2SeqTokens::Seq2SeqTokens(Seq2Seq& model, Tape& tape, std::span<const int32_t> source, const Sequences& sources)
    : model_(model),
      tape_(tape),
      encoded_(model.encode(tape, source, sources)),
      cache_(std::ssize(model.decoder().layers()), model.width()) {
  QN_ASSERT(!tape.recording());
  int64_t i = 0;
  for (const auto& layer : model.decoder().layers())
    cache_.set_encoded(i++, layer->encoded_keys(tape, encoded_.states).value);
}

Tensor Seq2SeqTokens::next(std::span<const int32_t> tokens, std::span<const int32_t> parents,
                           std::span<const int32_t> sentences) {
  scores_.reset();
  if (kept_) tape_.arena.rewind(*kept_);
  const std::vector<int32_t> none(cache_.lengths().empty() ? tokens.size() : 0, -1), ones(tokens.size(), 1);
  DecodingStep step = cache_.advance(tape_, none.empty() ? parents : none, ones);
  std::vector<int32_t> begins(encoded_.sentences.begins.size()), counts(begins.size());
  for (size_t row = sentences.size(); row-- > 0;) {
    const auto sentence = static_cast<size_t>(sentences[row]);
    begins[sentence] = static_cast<int32_t>(row);
    ++counts[sentence];
  }
  step.hypotheses = {begins, counts, *std::max_element(counts.begin(), counts.end())};
  step.sentences = encoded_.sentences;
  const Var features = model_.step(tape_, tokens, cache_.positions(), step, cache_.memories());
  const Tensor scores = model_.head().log_probabilities(tape_, features);
  if (!kept_) kept_ = tape_.arena.mark();
  return scores_.emplace(tape_.k, scores).view();
}

}  // namespace qn
