// Python's regular expressions as PCRE2 text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace qn {

/// What Python's `re` says of a malformed pattern.
class PatternError : public Error {
 public:
  PatternError(const std::string& message, std::optional<size_t> position) : Error(message), position_(position) {}
  /// Character (code point, from 0) that the message is about, where Python names one.
  std::optional<size_t> position() const { return position_; }

 private:
  std::optional<size_t> position_;
};

/// PCRE2 text that matches, under PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL, what `pattern` (UTF-8) matches in Python 3.11's
/// `re` as a str pattern. Groups keep their numbers and lose their names. Throws PatternError where Python refuses the
/// pattern, in Python's words, and also for \N{NAME}, for more than 65535 repetitions, which PCRE2 has not, and for
/// flags of the whole pattern at its start, where fairseq puts a prefix.
std::string pcre2_from_python(std::string_view pattern);

}  // namespace qn
