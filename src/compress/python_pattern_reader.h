// The characters of a Python regular expression, with the parts that need no grammar: escapes, names, inline flags.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "compress/python_charset.h"

namespace qn {

/// A character, or a backslash with the character that it escapes.
struct PatternToken {
  char32_t c = 0;
  bool escaped = false;

  bool is(char32_t plain) const { return !escaped && c == plain; }
  size_t size() const { return escaped ? 2 : 1; }
  std::string text() const;
};

std::string utf8(std::u32string_view text);

/// Reads tokens from left to right. Positions and lengths count code points. Errors are PatternErrors in Python's
/// words.
class PatternReader {
 public:
  explicit PatternReader(std::string_view pattern);

  bool at_end() const { return !ahead_; }
  size_t position() const { return end_ - (ahead_ ? ahead_->size() : 0); }
  void seek(size_t position);
  bool sees(char32_t plain) const { return ahead_ && ahead_->is(plain); }
  bool sees_digit(int base) const;
  /// Steps over the next token if it is this character.
  bool take(char32_t plain);
  PatternToken next(const char* message_at_end = "unexpected end of pattern");
  std::u32string digits();
  /// Everything up to the terminator, which is stepped over. `what` names it in messages.
  std::u32string until(char32_t terminator, const std::string& what);
  /// An identifier up to the terminator, which is stepped over.
  std::string group_name(char32_t terminator);
  /// The number of a condition's group, whose text and terminator have just been read.
  uint64_t group_number(const std::u32string& text) const;
  /// The character that a backslash with `c` stands for, inside or outside of brackets; reads the digits behind it.
  char32_t escaped_character(char32_t c, bool in_set);
  char32_t octal(std::u32string_view digits) const;
  /// The flags inside a group opened by "(?" and the flag or minus `sign`; nothing if they are for the whole pattern.
  std::optional<PatternFlags> inline_flags(PatternToken sign, PatternFlags flags);

  static bool is_flag(PatternToken token);
  static bool is_identifier(std::u32string_view text);

  /// Throws the error `offset` characters before the current position.
  [[noreturn]] void error(const std::string& message, size_t offset = 0) const;

 private:
  std::u32string digits(size_t most, int base);
  char32_t hexadecimal(char32_t letter, size_t digits);
  PatternToken next_flag(const std::string& missing, std::u32string_view terminators);

  std::u32string text_;
  std::optional<PatternToken> ahead_;
  size_t end_ = 0;  ///< behind ahead_
};

}  // namespace qn
