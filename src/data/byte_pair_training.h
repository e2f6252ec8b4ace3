// A vocabulary of byte pairs of one's own (Sennrich et al. 2016, on bytes as GPT-2 does): the pair of neighbouring
// tokens that is most frequent in the words of a text becomes a token, again and again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace qn {

struct BytePairTraining {
  int64_t size = 0;           ///< tokens, the 256 bytes among them; 0: no training
  int64_t min_frequency = 2;  ///< pairs that occur less often do not become tokens
};

struct TrainedBytePairs {
  /// vocab.json and merges.txt, which make_tokenizer() takes. Their numbers are GPT-2's: bytes, then merges.
  std::vector<TokenizerFile> files;
  int64_t words = 0;      ///< different ones
  int64_t size = 0;       ///< tokens; fewer than asked for where no pair is frequent enough any more
  int64_t frequency = 0;  ///< of the last pair
};

/// Makes the merges that the package `tokenizers` makes (BpeTrainer behind ByteLevel without a blank in front, all
/// bytes in the initial alphabet, no special tokens) of the same lines, white space at their ends left out: of pairs
/// that are equally frequent the one whose left token has the lower number comes first, then the one whose right token
/// has. The number of threads plays no part. `texts` must be UTF-8. Throws qn::Error when there is no word in them.
TrainedBytePairs train_byte_pairs(std::span<const std::string_view> texts, const BytePairTraining& training);

}  // namespace qn
