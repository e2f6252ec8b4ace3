#include "compress/python_pattern_reader.h"

#include <algorithm>
#include <limits>

#include "compress/python_pattern.h"

namespace qn {
namespace {

constexpr uint64_t kMostGroups = std::numeric_limits<int32_t>::max();  ///< numbers beyond it are all the same
constexpr std::u32string_view kFlags = U"iLmsxatu";

bool is_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The value of a digit, or -1.
int digit_value(char32_t c, int base) {
  int value = -1;
  if (c >= '0' && c <= '9') value = static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') value = static_cast<int>(c - 'a') + 10;
  if (c >= 'A' && c <= 'F') value = static_cast<int>(c - 'A') + 10;
  return value < base ? value : -1;
}

uint64_t number_of(std::u32string_view digits, int base) {
  uint64_t number = 0;
  for (const char32_t c : digits)
    number = std::min<uint64_t>(kMostGroups,
                                number * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit_value(c, base)));
  return number;
}

void append(std::string& text, char32_t c) {
  const auto byte = [&](char32_t bits) { text += static_cast<char>(bits); };
  if (c < 0x80) return byte(c);
  if (c < 0x800) {
    byte(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      byte(0xE0 | c >> 12);
    } else {
      byte(0xF0 | c >> 18);
      byte(0x80 | (c >> 12 & 0x3F));
    }
    byte(0x80 | (c >> 6 & 0x3F));
  }
  byte(0x80 | (c & 0x3F));
}

std::u32string code_points(std::string_view text) {
  std::u32string result;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    const int more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t c = more == 0 ? lead : lead & (0x3F >> more);
    for (int k = 0; k < more && i < text.size(); ++k) c = c << 6 | (static_cast<unsigned char>(text[i++]) & 0x3F);
    result += c;
  }
  if (utf8(result) != text) throw PatternError("not valid UTF-8", std::nullopt);
  return result;
}

/// The text as Python shows it.
std::string quoted_name(std::u32string_view text) {
  std::string result = "'";
  for (const char32_t c : text) {
    if (c == '\\') result += '\\';
    append(result, c);
  }
  return result + "'";
}

}  // namespace

std::string utf8(std::u32string_view text) {
  std::string result;
  for (const char32_t c : text) append(result, c);
  return result;
}

std::string PatternToken::text() const { return (escaped ? "\\" : "") + utf8({&c, 1}); }

PatternReader::PatternReader(std::string_view pattern) : text_(code_points(pattern)) { seek(0); }

void PatternReader::seek(size_t position) {
  ahead_.reset();
  end_ = std::min(position, text_.size());
  if (end_ == text_.size()) return;
  const bool escaped = text_[end_] == '\\';
  if (escaped && ++end_ == text_.size()) throw PatternError("bad escape (end of pattern)", text_.size() - 1);
  ahead_ = PatternToken{text_[end_++], escaped};
}

bool PatternReader::sees_digit(int base) const {
  return ahead_ && !ahead_->escaped && digit_value(ahead_->c, base) >= 0;
}

bool PatternReader::take(char32_t plain) {
  const bool found = sees(plain);
  if (found) seek(end_);
  return found;
}

PatternToken PatternReader::next(const char* message_at_end) {
  if (!ahead_) error(message_at_end);
  const PatternToken token = *ahead_;
  seek(end_);
  return token;
}

std::u32string PatternReader::digits(size_t most, int base) {
  std::u32string result;
  while (result.size() < most && sees_digit(base)) result += next().c;
  return result;
}

std::u32string PatternReader::digits() { return digits(std::u32string::npos, 10); }

std::u32string PatternReader::until(char32_t terminator, const std::string& what) {
  std::u32string result;
  while (!take(terminator)) {
    if (at_end() && result.empty()) error("missing " + what);
    if (at_end()) error(fmt::format("missing {}, unterminated name", utf8({&terminator, 1})), result.size());
    const PatternToken token = next();
    if (token.escaped) result += '\\';
    result += token.c;
  }
  if (result.empty()) error("missing " + what, 1);
  return result;
}

bool PatternReader::is_identifier(std::u32string_view text) {
  const auto starts = [](char32_t c) { return is_letter(c) || c == '_' || c >= 0x80; };
  return !text.empty() && starts(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char32_t c) { return starts(c) || digit_value(c, 10) >= 0; });
}

std::string PatternReader::group_name(char32_t terminator) {
  const std::u32string name = until(terminator, "group name");
  if (!is_identifier(name)) error("bad character in group name " + quoted_name(name), name.size() + 1);
  return utf8(name);
}

uint64_t PatternReader::group_number(const std::u32string& text) const {
  // What Python's int() reads: spaces around it, a sign, single underscores between digits.
  constexpr std::u32string_view kSpaces = U" \t\n\r\v\f";
  std::u32string_view rest = text;
  while (!rest.empty() && kSpaces.find(rest.front()) != std::u32string_view::npos) rest.remove_prefix(1);
  while (!rest.empty() && kSpaces.find(rest.back()) != std::u32string_view::npos) rest.remove_suffix(1);
  const bool minus = rest.starts_with(U'-');
  if (minus || rest.starts_with(U'+')) rest.remove_prefix(1);
  std::u32string digits;
  bool good = !rest.empty();
  for (size_t i = 0; i < rest.size(); ++i) {
    if (digit_value(rest[i], 10) >= 0)
      digits += rest[i];
    else
      good &= rest[i] == '_' && i > 0 && i + 1 < rest.size() && rest[i - 1] != '_';
  }
  const uint64_t number = number_of(digits, 10);
  if (!good || (minus && number > 0)) error("bad character in group name " + quoted_name(text), text.size() + 1);
  if (number == kMostGroups) error("invalid group reference " + utf8(digits), text.size() + 1);
  if (number == 0) error("bad group number", text.size() + 1);
  return number;
}

char32_t PatternReader::octal(std::u32string_view digits) const {
  const uint64_t value = number_of(digits, 8);
  if (value > 0377)
    error(fmt::format("octal escape value \\{} outside of range 0-0o377", utf8(digits)), digits.size() + 1);
  return static_cast<char32_t>(value);
}

char32_t PatternReader::hexadecimal(char32_t letter, size_t count) {
  const std::u32string found = digits(count, 16);
  const std::string escape = "\\" + utf8({&letter, 1}) + utf8(found);
  if (found.size() < count) error("incomplete escape " + escape, escape.size());
  const uint64_t value = number_of(found, 16);
  if (value > 0x10FFFF) error("bad escape " + escape, escape.size());
  return static_cast<char32_t>(value);
}

char32_t PatternReader::escaped_character(char32_t c, bool in_set) {
  constexpr std::u32string_view kLetters = U"abfnrtv", kControls = U"\a\b\f\n\r\t\v";
  if (c == 'x') return hexadecimal(c, 2);
  if (c == 'u') return hexadecimal(c, 4);
  if (c == 'U') return hexadecimal(c, 8);
  if (c == 'N') error("names of characters (\\N) are not supported; write \\uXXXX", 2);
  if (digit_value(c, 8) >= 0) return octal(std::u32string(1, c) + digits(2, 8));
  if (const size_t i = kLetters.find(c); i != std::u32string_view::npos && (c != 'b' || in_set)) return kControls[i];
  if (is_letter(c) || digit_value(c, 10) >= 0) error("bad escape " + PatternToken{c, true}.text(), 2);
  return c;
}

bool PatternReader::is_flag(PatternToken token) {
  return !token.escaped && kFlags.find(token.c) != std::u32string_view::npos;
}

/// The next flag or terminator.
PatternToken PatternReader::next_flag(const std::string& missing, std::u32string_view terminators) {
  const PatternToken token = next(missing.c_str());
  if (is_flag(token) || (!token.escaped && terminators.find(token.c) != std::u32string_view::npos)) return token;
  const bool letter = !token.escaped && (is_letter(token.c) || token.c >= 0x80);
  error(letter ? "unknown flag" : missing, token.size());
}

std::optional<PatternFlags> PatternReader::inline_flags(PatternToken sign, PatternFlags flags) {
  std::u32string on, off;
  const auto has = [](const std::u32string& set, char32_t flag) { return set.find(flag) != std::u32string::npos; };
  while (is_flag(sign)) {
    if (sign.c == 'L') error("bad inline flags: cannot use 'L' flag with a str pattern");
    on += sign.c;
    if (has(on, 'a') && has(on, 'u')) error("bad inline flags: flags 'a', 'u' and 'L' are incompatible");
    sign = next_flag("missing -, : or )", U")-:");
  }
  if (sign.c == ')') return std::nullopt;
  if (has(on, 't')) error("bad inline flags: cannot turn on global flag", 1);
  if (sign.c == '-') {
    sign = next_flag("missing flag", U"");
    while (is_flag(sign)) {
      if (has(U"auL", sign.c)) error("bad inline flags: cannot turn off flags 'a', 'u' and 'L'");
      off += sign.c;
      sign = next_flag("missing :", U":");
    }
  }
  if (has(off, 't')) error("bad inline flags: cannot turn off global flag", 1);
  for (const char32_t flag : on)
    if (has(off, flag)) error("bad inline flags: flag turned on and off", 1);
  const auto change = [&](bool& value, char32_t flag) { value = (value || has(on, flag)) && !has(off, flag); };
  change(flags.ignore_case, 'i');
  change(flags.multiline, 'm');
  change(flags.dot_all, 's');
  change(flags.verbose, 'x');
  flags.ascii = (flags.ascii || has(on, 'a')) && !has(on, 'u');
  return flags;
}

void PatternReader::error(const std::string& message, size_t offset) const {
  throw PatternError(message, position() - std::min(offset, position()));
}

}  // namespace qn
