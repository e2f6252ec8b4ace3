// Translating token by token: an encoder-decoder as a model of the next token.
#pragma once

#include <optional>

#include "models/beam_search.h"
#include "models/decoding_cache.h"
#include "models/seq2seq.h"
#include "ops/host_access.h"

namespace qn {

class Seq2SeqTokens : public TokenModel {
 public:
  /// Encodes the sentences. All is computed in one pass of `tape`, which must not record and is the object's until its
  /// end: weights are decoded once, and the memory of a step is used by the next one.
  Seq2SeqTokens(Seq2Seq& model, Tape& tape, std::span<const int32_t> source, const Sequences& sources);

  int64_t vocabulary() const override { return model_.target_vocabulary(); }
  Tensor next(std::span<const int32_t> tokens, std::span<const int32_t> parents,
              std::span<const int32_t> sentences) override;

 private:
  Seq2Seq& model_;
  Tape& tape_;
  Encoded encoded_;
  DecodingCache cache_;
  std::optional<Arena::Mark> kept_;  // what the first step has computed for all
  std::optional<HostView> scores_;
};

}  // namespace qn
