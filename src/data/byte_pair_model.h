// What a vocabulary of byte pairs consists of, and the two files that most programs keep it in: JSON of tokens and ids
// (encoder.json, vocab.json), and a list of merges, a pair per line (vocab.bpe, merges.txt).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/tokenizer.h"

namespace qn {

/// Tokens are spelled in GPT-2's characters for bytes.
struct BytePairModel {
  struct Merge {
    std::string left, right;
    int64_t number;  ///< of its line or entry, from 1
  };
  std::unordered_map<std::string, int32_t> ids;
  std::vector<Merge> merges;
  /// Tokens that stand for no text and come from no merge, like <|endoftext|>.
  std::function<bool(const std::string& token)> is_special;
  bool prefix_space = false;  ///< a text is encoded with a blank in front
  bool by_words = true;       ///< texts are cut into words first

  // For messages: the files, and what stands before a merge's number.
  std::string vocabulary_name, merges_name, merge_prefix;
};

/// Throws qn::Error naming file and line or token.
BytePairModel read_byte_pairs(const TokenizerFile& vocabulary, const TokenizerFile& merges);

/// Ids are below this; more is damage.
inline constexpr int32_t kMostTokens = 1 << 24;

}  // namespace qn
