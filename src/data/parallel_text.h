// A text and its translation, line by line, as `quantnoise prepare --pairs` and fairseq-preprocess leave them:
// SPLIT.S-T.S.bin and .idx, SPLIT.S-T.T.bin and .idx, dict.S.txt and dict.T.txt for the languages S and T.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dictionary.h"
#include "data/token_stream.h"

namespace qn {

/// What the splits of a folder share.
struct ParallelFolder {
  /// Finds the languages by the names of the files. Throws qn::Error naming what is missing and what to do.
  explicit ParallelFolder(const std::filesystem::path& folder);

  std::filesystem::path path;
  std::string source_language, target_language;
  Dictionary source, target;
  /// Both languages have one dictionary: the model may share its tables.
  bool joined() const { return source.hash() == target.hash(); }
  /// Of a split's files: "train.de-en.de".
  std::string name_of(const std::string& split, const std::string& language) const {
    return split + "." + source_language + "-" + target_language + "." + language;
  }
};

class ParallelText {
 public:
  /// Opens a split; reads it once to check it. Throws qn::Error naming the file and what to do: no such split, damaged
  /// or changed files, sides of unequal length.
  ParallelText(const ParallelFolder& folder, const std::string& split);

  int64_t size() const { return source_.sentences(); }
  /// Tokens of a side, the </s> at its end included; `sample` in [0, size()).
  std::vector<int32_t> source(int64_t sample) const { return source_.sentence(sample); }
  std::vector<int32_t> target(int64_t sample) const { return target_.sentence(sample); }
  /// How many there are, per sample.
  const std::vector<int32_t>& source_sizes() const { return source_.sentence_sizes(); }
  const std::vector<int32_t>& target_sizes() const { return target_.sentence_sizes(); }
  /// Of all that is above: a run that goes on must find the same.
  uint64_t checksum() const { return checksum_; }

 private:
  TokenStream source_, target_;
  uint64_t checksum_ = 0;
};

}  // namespace qn
