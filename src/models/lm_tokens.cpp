#include "models/lm_tokens.h"

#include <algorithm>

namespace qn {

LmTokens::LmTokens(TransformerLm& model, Tape& tape)
    : model_(model), tape_(tape), cache_(std::ssize(model.layers().layers()), model.width()) {
  QN_ASSERT(!tape.recording());
  // What a pass computes once stays where it is computed first: that must be now, and not within a step.
  const Arena::Mark begin = tape.arena.mark();
  const int64_t kept = tape.kept_values();
  const std::vector<int32_t> tokens = model.token_of_every_band();
  const Var features = model.features(tape, {std::ssize(tokens), 1, tokens, {}});
  model.head().log_probabilities(tape, {features.value.row_slice(0, 1), nullptr});
  kept_ = tape.kept_values() > kept ? tape.arena.mark() : begin;
}

Tensor LmTokens::next(std::span<const int32_t> tokens, std::span<const int32_t> counts,
                      std::span<const int32_t> parents) {
  scores_.reset();
  tape_.arena.rewind(kept_);
  const DecodingStep step = cache_.advance(tape_, parents, counts);
  Var x = model_.step(tape_, tokens, cache_.positions(), step, cache_.memories());
  if (tokens.size() > counts.size()) {
    std::vector<int32_t> last;
    for (const int32_t count : counts) last.push_back((last.empty() ? -1 : last.back()) + count);
    x = select_rows(tape_, x, last);
  }
  return scores_.emplace(tape_.k, model_.head().log_probabilities(tape_, x)).view();
}

Tensor PromptedTokens::next(std::span<const int32_t> tokens, std::span<const int32_t> parents,
                            std::span<const int32_t> sentences) {
  if (prompts_.empty()) return model_.next(tokens, std::vector<int32_t>(tokens.size(), 1), parents);
  std::vector<int32_t> read, counts;
  for (const int32_t sentence : sentences) {
    const std::vector<int32_t>& prompt = prompts_[static_cast<size_t>(sentence)];
    read.insert(read.end(), prompt.begin(), prompt.end());
    counts.push_back(static_cast<int32_t>(prompt.size()));
  }
  prompts_.clear();
  return model_.next(read, counts, std::vector<int32_t>(counts.size(), -1));
}

}  // namespace qn
