// A text token by token: a language model as a model of the next token, which remembers keys and values.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "models/beam_search.h"
#include "models/decoding_cache.h"
#include "models/transformer_lm.h"
#include "ops/host_access.h"

namespace qn {

class LmTokens {
 public:
  /// All is computed in one pass of `tape`, which must not record and is the object's until its end: weights are
  /// decoded once, and the memory of a step is used by the next one.
  LmTokens(TransformerLm& model, Tape& tape);

  /// log p of every word behind hypothesis i, which is what was number parents[i] of the call before (-1: nothing yet)
  /// and counts[i] > 0 further tokens; `tokens` has those of all hypotheses one behind another. [counts, vocabulary],
  /// f32 or f64 in host memory, until the next call. No hypothesis may become longer than the model's positions.
  Tensor next(std::span<const int32_t> tokens, std::span<const int32_t> counts, std::span<const int32_t> parents);

  int64_t max_positions() const { return model_.max_positions(); }

 private:
  TransformerLm& model_;
  Tape& tape_;
  DecodingCache cache_;
  Arena::Mark kept_;  // what all steps use
  std::optional<HostView> scores_;
};

/// For beam_search(): the first call takes the prompt of every sentence in place of the end mark. A prompt begins with
/// the end mark, and with its continuation it must fit the model's positions.
class PromptedTokens : public TokenModel {
 public:
  PromptedTokens(LmTokens& model, std::vector<std::vector<int32_t>> prompts, int64_t vocabulary)
      : model_(model), prompts_(std::move(prompts)), vocabulary_(vocabulary) {}
  int64_t vocabulary() const override { return vocabulary_; }
  Tensor next(std::span<const int32_t> tokens, std::span<const int32_t> parents,
              std::span<const int32_t> sentences) override;

 private:
  LmTokens& model_;
  std::vector<std::vector<int32_t>> prompts_;  // none any more once they have been read
  int64_t vocabulary_;
};

}  // namespace qn
