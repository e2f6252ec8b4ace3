// Labelled sentences or pairs of sentences, as `quantnoise prepare --table` and fairseq's GLUE scripts leave them
// (fairseq semantics 6.6, docs/formats.md section 3): folders input0, input1 (for pairs) and label.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/dictionary.h"
#include "data/token_stream.h"

namespace qn {

/// What the splits of a folder share.
struct SentencePairFolder {
  /// Throws qn::Error naming what is missing and what to do.
  explicit SentencePairFolder(const std::filesystem::path& folder);

  std::filesystem::path path;
  Dictionary dictionary;            ///< of both sentences
  bool pairs = false;               ///< there is a second sentence
  bool regression = false;          ///< samples have scores in place of classes
  std::vector<std::string> labels;  ///< names of the classes 0, 1, ..., the most frequent first; none for regression
};

class SentencePairs {
 public:
  /// Opens a split; reads it once to check it. Throws qn::Error naming the file and what to do: no such split, damaged
  /// or changed files, streams of unequal length, labels that are no classes.
  SentencePairs(const SentencePairFolder& folder, const std::string& split);

  const std::string& name() const { return name_; }
  int64_t size() const { return input0_.sentences(); }
  bool pairs() const { return input1_.has_value(); }
  /// Test splits may have no labels.
  bool labelled() const { return !labels_.empty() || !scores_.empty(); }

  /// Tokens of a sentence, the </s> at its end included; `sample` in [0, size()). input1 only of pairs.
  std::vector<int32_t> input0(int64_t sample) const { return input0_.sentence(sample); }
  std::vector<int32_t> input1(int64_t sample) const { return input1_->sentence(sample); }
  /// How many there are.
  int32_t length0(int64_t sample) const { return input0_.sentence_sizes()[static_cast<size_t>(sample)]; }
  int32_t length1(int64_t sample) const { return input1_->sentence_sizes()[static_cast<size_t>(sample)]; }

  /// Class of a sample, in [0, labels of the folder); only where labelled() and not regression.
  int32_t label(int64_t sample) const { return labels_[static_cast<size_t>(sample)]; }
  /// Score of a sample; only where labelled() and regression.
  float score(int64_t sample) const { return scores_[static_cast<size_t>(sample)]; }

  /// Of all that is above: a run that goes on must find the same.
  uint64_t checksum() const { return checksum_; }

 private:
  void read_labels(const SentencePairFolder& folder, const std::string& split);
  void read_scores(const std::filesystem::path& path);

  std::string name_;  // for messages
  TokenStream input0_;
  std::optional<TokenStream> input1_;
  std::vector<int32_t> labels_;
  std::vector<float> scores_;
  uint64_t checksum_ = 0;
};

}  // namespace qn
