// What a masked language model has to guess: fairseq's masking of tokens, bit for bit (reference 6.5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/special_tokens.h"
#include "data/pcg64.h"

namespace qn {

struct MaskingOptions {
  double mask_prob = 0.15;           ///< share of the tokens (of the words) that have to be guessed
  double leave_unmasked_prob = 0.1;  ///< of these: share that stays as it is
  double random_token_prob = 0.1;    ///< of these: share that becomes a random token; the rest becomes <mask>
  int32_t mask_id = -1;
  int32_t pad_id = kPadId;
};

class Masking {
 public:
  /// `replacement_weights` [vocabulary]: how likely a random token is which. Needed where there are random tokens.
  /// `begins_word` [vocabulary]: whether a token begins a word; not empty: words are masked as a whole.
  Masking(const MaskingOptions& options, std::span<const double> replacement_weights,
          std::vector<bool> begins_word = {});

  struct Item {
    std::vector<int32_t> source;  ///< what the model sees
    std::vector<int32_t> target;  ///< what was there before where it has to be guessed, elsewhere padding
  };
  /// The item of this number in an epoch of a run: a pure function of all four. Any token may have to be guessed, also
  /// <s> and </s>. Tokens before the first beginning of a word are only seen.
  Item masked(std::span<const int32_t> tokens, int64_t seed, int64_t epoch, int64_t number) const;

 private:
  /// Where units (tokens or words) begin in `tokens`, and the end of the last one.
  std::vector<size_t> units_of(std::span<const int32_t> tokens) const;

  MaskingOptions options_;
  WeightedChoice replacement_;
  std::vector<bool> begins_word_;
};

}  // namespace qn
