#include "compress/python_charset.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"

namespace qn {
namespace {

using Range = CharSet::Range;

constexpr char32_t kLastCodePoint = 0x10FFFF, kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

// \d is PCRE2's \p{Nd}. \w and \s are spelled out: PCRE2's differ from Python's and between its versions.
constexpr const char* kDigit = R"(\p{Nd})";
constexpr const char* kWord = R"(\p{L}\p{N}_)";
constexpr std::array<Range, 1> kAsciiDigit{{{'0', '9'}}};
constexpr std::array<Range, 4> kAsciiWord{{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}};
constexpr std::array<Range, 2> kAsciiSpace{{{'\t', '\r'}, {' ', ' '}}};
constexpr std::array<Range, 10> kSpace{{{'\t', '\r'},
                                        {0x1C, 0x20},
                                        {0x85, 0x85},
                                        {0xA0, 0xA0},
                                        {0x1680, 0x1680},
                                        {0x2000, 0x200A},
                                        {0x2028, 0x2029},
                                        {0x202F, 0x202F},
                                        {0x205F, 0x205F},
                                        {0x3000, 0x3000}}};

/// Characters that are the same to Python when case is ignored, but not to PCRE2.
constexpr std::array<std::u32string_view, 3> kPythonCases{U"Ii\u0130\u0131", U"\u0390\u1FD3", U"\u03B0\u1FE3"};

constexpr Range kUpper{'A', 'Z'}, kLower{'a', 'z'};

bool is_in(char32_t c, Range range) { return c >= range.first && c <= range.second; }
bool is_ascii_letter(char32_t c) { return is_in(c, kUpper) || is_in(c, kLower); }

std::string code_point(char32_t c) {
  if (is_ascii_letter(c) || (c >= '0' && c <= '9')) return std::string(1, static_cast<char>(c));
  return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(c));
}

/// The range for between brackets. Surrogates, which no UTF-8 text has and PCRE2 refuses, are left out.
std::string range_text(Range range) {
  if (is_in(range.first, {kFirstSurrogate, kLastSurrogate})) range.first = kLastSurrogate + 1;
  if (is_in(range.second, {kFirstSurrogate, kLastSurrogate})) range.second = kFirstSurrogate - 1;
  if (range.first > range.second) return "";
  if (range.first == range.second) return code_point(range.first);
  return code_point(range.first) + "-" + code_point(range.second);
}

/// What is in both ranges, moved from letters of one case to the other.
std::string other_case(Range range, Range from, Range to) {
  const Range common{std::max(range.first, from.first), std::min(range.second, from.second)};
  if (common.first > common.second) return "";
  return range_text({common.first - from.first + to.first, common.second - from.first + to.first});
}

/// The members that a range gets when case is ignored, beyond what PCRE2 adds with (?i:.
std::string more_cases(Range range, bool ascii) {
  if (ascii) return other_case(range, kUpper, kLower) + other_case(range, kLower, kUpper);
  std::string members;
  for (const std::u32string_view same : kPythonCases)
    if (std::any_of(same.begin(), same.end(), [&](char32_t c) { return is_in(c, range); }))
      for (const char32_t c : same) members += code_point(c);
  return members;
}

std::string ignoring_case(const std::string& item) { return "(?i:" + item + ")"; }

}  // namespace

void CharSet::add_ranges(std::span<const Range> ranges, bool complement) {
  if (!complement) {
    ranges_.insert(ranges_.end(), ranges.begin(), ranges.end());
    return;
  }
  char32_t next = 0;
  for (const Range& range : ranges) {
    if (next < range.first) ranges_.emplace_back(next, range.first - 1);
    next = range.second + 1;
  }
  ranges_.emplace_back(next, kLastCodePoint);
}

void CharSet::add_category(char32_t letter) {
  const bool complement = is_in(letter, kUpper);
  switch (letter) {
    case 'd':
    case 'D':
      if (flags_.ascii)
        add_ranges(kAsciiDigit, complement);
      else
        properties_ += complement ? R"(\P{Nd})" : kDigit;
      return;
    case 's':
    case 'S':
      if (flags_.ascii)
        add_ranges(kAsciiSpace, complement);
      else
        add_ranges(kSpace, complement);
      return;
    case 'w':
    case 'W':
      if (flags_.ascii)
        add_ranges(kAsciiWord, complement);
      else if (complement)
        not_word_ = true;
      else
        properties_ += kWord;
      return;
    default:
      QN_ASSERT(false, "no category");
  }
}

std::string CharSet::pcre2(bool negated) const {
  std::string members = properties_;
  for (const Range& range : ranges_) {
    members += range_text(range);
    if (flags_.ignore_case) members += more_cases(range, flags_.ascii);
  }
  if (!not_word_ && !members.empty()) {
    const std::string item = (negated ? "[^" : "[") + members + "]";
    return flags_.ignore_case && !flags_.ascii ? ignoring_case(item) : item;
  }
  std::string item = not_word_ ? fmt::format("[^{}]", kWord) : "(?!)";
  if (!members.empty()) item = fmt::format("(?:[{}]|{})", members, item);
  if (flags_.ignore_case && !flags_.ascii) item = ignoring_case(item);
  return fmt::format("(?:({}{}).)", negated ? "?!" : "?=", item);
}

std::string pcre2_literal(char32_t c, PatternFlags flags) {
  const bool cased = flags.ignore_case && (is_ascii_letter(c) || (c >= 0x80 && !flags.ascii));
  if (!cased && !is_in(c, {kFirstSurrogate, kLastSurrogate})) return code_point(c);
  CharSet set(flags);
  set.add({c, c});
  return set.pcre2(false);
}

std::string pcre2_word_boundary(bool negated, PatternFlags flags) {
  const char* word = flags.ascii ? "[0-9A-Za-z_]" : R"([\p{L}\p{N}_])";
  if (!negated) return fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word);
  // In Python, \B fails in an empty text.
  return fmt::format(R"((?!\A\z)(?:(?<={0})(?={0})|(?<!{0})(?!{0})))", word);
}

}  // namespace qn
