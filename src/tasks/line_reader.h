// A line of text to the ids of a dictionary, as `prepare` would make them.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/special_tokens.h"
#include "data/dictionary.h"
#include "data/split_lines.h"
#include "data/tokenizer.h"

namespace qn {

/// What messages call line i of those that come behind `lines_before` others.
inline std::string line_name(int64_t lines_before, size_t i) {
  return fmt::format("line {}", lines_before + static_cast<int64_t>(i) + 1);
}

class LineReader {
 public:
  /// `tokenizer` may be null: words are what stands between spaces.
  LineReader(const Dictionary& dictionary, const Tokenizer* tokenizer)
      : dictionary_(dictionary), tokenizer_(tokenizer) {}

  /// Ids and the end mark; `name` is for messages.
  std::vector<int32_t> read(std::string_view text, const std::string& name) {
    ids_.clear();
    check_line_is_utf8(text, name);
    scan_words(text, name, tokenizer_, *this);
    ids_.push_back(kEosId);
    return ids_;
  }
  void token(std::string_view word) {
    const int32_t id = dictionary_.index(word);
    ids_.push_back(id == kPadId ? kUnkId : id);
  }
  void end_line() {}

 private:
  const Dictionary& dictionary_;
  const Tokenizer* tokenizer_;
  std::vector<int32_t> ids_;
};

}  // namespace qn
