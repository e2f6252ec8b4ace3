// Sets of characters and positions between characters as Python's regular expressions know them, written for PCRE2.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace qn {

/// Inline flags in force at some place of a pattern.
struct PatternFlags {
  bool ascii = false;        ///< (?a: \w, \d, \s, \b and ignore_case know ASCII only
  bool ignore_case = false;  ///< (?i:
  bool multiline = false;    ///< (?m: ^ and $ match at line ends
  bool dot_all = false;      ///< (?s: the dot matches line ends
  bool verbose = false;      ///< (?x: spaces and comments do not count
};

/// A set of code points; what is added adds up.
class CharSet {
 public:
  using Range = std::pair<char32_t, char32_t>;  ///< first and last

  explicit CharSet(PatternFlags flags) : flags_(flags) {}
  void add(Range range) { ranges_.push_back(range); }
  /// What \d, \D, \s, \S, \w or \W stands for, given by its letter.
  void add_category(char32_t letter);
  /// One PCRE2 item that matches one character of the set, or one outside of it if `negated`.
  std::string pcre2(bool negated) const;

 private:
  void add_ranges(std::span<const Range> ranges, bool complement);

  PatternFlags flags_;
  std::vector<Range> ranges_;
  std::string properties_;  ///< PCRE2 text for between the brackets
  bool not_word_ = false;   ///< also everything outside of Unicode's \w
};

/// One PCRE2 item for one character.
std::string pcre2_literal(char32_t c, PatternFlags flags);

/// \b, or \B if `negated`.
std::string pcre2_word_boundary(bool negated, PatternFlags flags);

}  // namespace qn
