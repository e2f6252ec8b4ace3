// Sentences by themselves, without labels: the lines of a prepared text, or all sentences of a prepared table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/token_stream.h"

namespace qn {

/// Where the dict.txt of such a folder is. Throws qn::Error saying how to make one when it has none.
std::filesystem::path sentence_dictionary(const std::filesystem::path& folder);

class SentenceLines {
 public:
  /// Opens a split; reads it once to check it. Of pairs, first sentences come before second ones. Throws qn::Error
  /// naming the file and what to do.
  SentenceLines(const std::filesystem::path& folder, const Dictionary& dictionary, const std::string& split);

  const std::string& name() const { return name_; }  ///< for messages
  int64_t size() const;
  /// Tokens, the </s> at the end included; `i` in [0, size()).
  std::vector<int32_t> sentence(int64_t i) const;
  int32_t length(int64_t i) const;
  /// Of all sentences: a run that goes on must find the same.
  uint64_t checksum() const { return checksum_; }

 private:
  std::pair<const TokenStream*, int64_t> find(int64_t i) const;

  std::string name_;
  std::vector<TokenStream> streams_;
  uint64_t checksum_ = 0;
};

}  // namespace qn
