// From text files to a dictionary and binarized token streams: what fairseq-preprocess --only-source does (fairseq
// semantics 6.1), with the same files as result.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/dictionary.h"

namespace qn {

class TokenStreamWriter;

struct PrepareOptions {
  std::filesystem::path train;                     ///< may be empty when srcdict is given
  std::vector<std::filesystem::path> valid, test;  ///< become valid, valid1, ... and test, test1, ...
  std::filesystem::path destdir;                   ///< created if needed
  DictionaryLimits limits;                         ///< for a dictionary made from `train`
  std::filesystem::path srcdict;                   ///< use this dict.txt instead of making one
};

struct SplitSummary {
  std::string name;                        ///< train, valid, ...
  std::filesystem::path source;            ///< the text file
  int64_t sentences = 0;                   ///< lines
  int64_t tokens = 0;                      ///< one </s> per line included
  int64_t unknown = 0;                     ///< tokens that are stored as <unk>
  int64_t replaced = 0;                    ///< of these, the ones that the text spells differently
  std::array<int64_t, kUnkId> specials{};  ///< words that the text spells <s>, <pad>, </s>
  double unknown_share() const { return tokens > 0 ? static_cast<double>(unknown) / static_cast<double>(tokens) : 0; }
};

struct PrepareSummary {
  int64_t types = 0;  ///< size of the dictionary, specials and padding words included
  uint64_t dictionary_hash = 0;
  std::vector<SplitSummary> splits;
};

/// Counts the tokens of a text, plus one </s> per line, into `dictionary`. `name` is for messages.
void count_tokens(std::string_view text, std::string_view name, Dictionary& dictionary);

/// Appends a text to a stream: per line its ids and </s>. A word spelled like a special symbol gets that symbol's id,
/// as in fairseq, but <pad>, which becomes <unk>: padding is scored by nobody. `name` is for messages. Sets all of the
/// summary but the names.
SplitSummary binarize(std::string_view text, std::string_view name, const Dictionary& dictionary,
                      TokenStreamWriter& writer);

/// Writes dict.txt and, per text, SPLIT.bin, SPLIT.idx and SPLIT.sum to destdir. All texts are checked first: nothing
/// in destdir changes when one of them is bad, or when destdir holds other splits that were made with another
/// dictionary. Throws qn::Error for missing or empty files and invalid UTF-8, naming file and line.
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace qn
