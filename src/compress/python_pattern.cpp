#include "compress/python_pattern.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "compress/python_charset.h"
#include "compress/python_pattern_reader.h"

namespace qn {
namespace {

constexpr uint64_t kUnbounded = 4294967295;   ///< Python's MAXREPEAT
constexpr uint64_t kMostRepetitions = 65535;  ///< PCRE2's
constexpr uint64_t kWidest = uint64_t{1} << 62;
constexpr int kDeepest = 240;  ///< PCRE2 stops at 250

/// How many characters a piece of a pattern matches, at least and at most.
struct Width {
  uint64_t least = 0, most = 0;

  Width operator+(Width other) const { return {sum(least, other.least), sum(most, other.most)}; }
  Width either(Width other) const { return {std::min(least, other.least), std::max(most, other.most)}; }
  Width times(uint64_t low, uint64_t high) const {
    return {product(least, low), high == kUnbounded && most > 0 ? kWidest : product(most, high)};
  }

 private:
  static uint64_t sum(uint64_t a, uint64_t b) { return std::min(kWidest, a + b); }
  static uint64_t product(uint64_t a, uint64_t b) { return a != 0 && b > kWidest / a ? kWidest : a * b; }
};

constexpr Width kOneCharacter{1, 1};

size_t text_length(const std::string& utf8_text) {
  return static_cast<size_t>(
      std::count_if(utf8_text.begin(), utf8_text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// PCRE2 text with what the rest of the pattern needs to know of it.
struct Piece {
  enum class Kind { item, assertion, position, repetition };

  std::string text;
  Width width = {};
  Kind kind = Kind::item;
};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string translate() {
    const Piece whole = alternatives({}, 0);
    if (!in_.at_end()) in_.error("unbalanced parenthesis");
    for (const auto& [group, position] : conditions_)
      if (group >= groups_.size()) throw PatternError(fmt::format("invalid group reference {}", group), position);
    if (loose_lookbehind_) throw PatternError("look-behind requires fixed-width pattern", std::nullopt);
    return whole.text;
  }

 private:
  struct Group {
    bool closed = false;
    Width width = {};
  };

  /// a|b|c
  Piece alternatives(PatternFlags flags, int depth) {
    Piece all = sequence(flags, depth);
    while (in_.take('|')) {
      const Piece next = sequence(flags, depth);
      all = {all.text + "|" + next.text, all.width.either(next.width)};
    }
    return all;
  }

  /// What stands between two bars.
  Piece sequence(PatternFlags flags, int depth) {
    if (depth > kDeepest) in_.error("parentheses are nested too deeply");
    std::vector<Piece> pieces;
    while (!in_.at_end() && !in_.sees('|') && !in_.sees(')')) {
      const size_t start = in_.position();
      const PatternToken token = in_.next();
      if (flags.verbose && skip_verbose(token)) continue;
      if (token.escaped)
        pieces.push_back(escape(token.c, flags));
      else if (token.c == '[')
        pieces.push_back(char_set(start, flags));
      else if (token.c == '(')
        group(start, flags, depth, pieces);
      else if (std::u32string_view(U"*+?{").find(token.c) != std::u32string_view::npos)
        repeat(token.c, start, flags, pieces);
      else
        pieces.push_back(plain(token.c, flags));
    }
    Piece all;
    for (const Piece& piece : pieces) all = {all.text + piece.text, all.width + piece.width};
    return all;
  }

  bool skip_verbose(PatternToken token) {
    if (token.escaped) return false;
    if (token.c == '#')
      while (!in_.at_end()) {
        const PatternToken comment = in_.next();
        if (!comment.escaped && comment.c == '\n') break;
      }
    return token.c == '#' || std::u32string_view(U" \t\n\r\v\f").find(token.c) != std::u32string_view::npos;
  }

  static Piece plain(char32_t c, PatternFlags flags) {
    constexpr auto kPosition = Piece::Kind::position;
    if (c == '^') return {flags.multiline ? R"((?:\A|(?<=\x0a)))" : R"(\A)", {}, kPosition};
    if (c == '$') return {flags.multiline ? R"((?=\x0a|\z))" : R"((?=\x0a?\z))", {}, kPosition};
    if (c == '.') return {flags.dot_all ? "." : R"([^\x0a])", kOneCharacter};
    return {pcre2_literal(c, flags), kOneCharacter};
  }

  Piece escape(char32_t c, PatternFlags flags) {
    constexpr auto kPosition = Piece::Kind::position;
    if (c == 'A') return {R"(\A)", {}, kPosition};
    if (c == 'Z') return {R"(\z)", {}, kPosition};
    if (c == 'b' || c == 'B') return {pcre2_word_boundary(c == 'B', flags), {}, kPosition};
    if (is_category(c)) {
      CharSet set(flags);
      set.add_category(c);
      return {set.pcre2(false), kOneCharacter};
    }
    if (c >= '1' && c <= '9') return octal_or_reference(c, flags);
    return {pcre2_literal(in_.escaped_character(c, /*in_set=*/false), flags), kOneCharacter};
  }

  static bool is_category(char32_t c) { return std::u32string_view(U"dDsSwW").find(c) != std::u32string_view::npos; }

  /// \1 to \99 are groups; three octal digits are a character.
  Piece octal_or_reference(char32_t first, PatternFlags flags) {
    std::u32string digits{first};
    if (in_.sees_digit(10)) digits += in_.next().c;
    if (digits.size() == 2 && digits[0] < '8' && digits[1] < '8' && in_.sees_digit(8)) {
      digits += in_.next().c;
      return {pcre2_literal(in_.octal(digits), flags), kOneCharacter};
    }
    uint64_t number = 0;
    for (const char32_t digit : digits) number = 10 * number + (digit - '0');
    if (number >= groups_.size()) in_.error(fmt::format("invalid group reference {}", number), digits.size());
    return reference(number, digits.size() + 1, flags);
  }

  /// The text of group `number`; the reference to it has taken `length` characters so far.
  Piece reference(uint64_t number, size_t length, PatternFlags flags) {
    if (!groups_[number].closed) in_.error("cannot refer to an open group", length);
    check_lookbehind(number);
    const std::string text = fmt::format("\\g{{{}}}", number);
    return {flags.ignore_case ? "(?i:" + text + ")" : text, groups_[number].width};
  }

  void check_lookbehind(uint64_t number) const {
    if (!lookbehind_groups_) return;
    if (number >= groups_.size() || !groups_[number].closed) in_.error("cannot refer to an open group");
    if (number >= *lookbehind_groups_) in_.error("cannot refer to group defined in the same lookbehind subpattern");
  }

  Piece char_set(size_t start, PatternFlags flags) {
    CharSet set(flags);
    const bool negated = in_.take('^');
    for (bool empty = true;; empty = false) {
      const PatternToken token = set_token(start);
      if (!token.escaped && token.c == ']' && !empty) break;
      const std::optional<char32_t> low = member(token, set);
      if (!in_.take('-')) {
        if (low) set.add({*low, *low});
        continue;
      }
      const PatternToken end = set_token(start);
      if (!end.escaped && end.c == ']') {
        if (low) set.add({*low, *low});
        set.add({'-', '-'});
        break;
      }
      const std::optional<char32_t> high = member(end, set);
      if (!low || !high || *high < *low) bad_range(token, end);
      set.add({*low, *high});
    }
    return {set.pcre2(negated), kOneCharacter};
  }

  PatternToken set_token(size_t start) {
    if (in_.at_end()) in_.error("unterminated character set", in_.position() - start);
    return in_.next();
  }

  /// The character that a token in brackets stands for; a category goes into the set and gives none.
  std::optional<char32_t> member(PatternToken token, CharSet& set) {
    if (!token.escaped) return token.c;
    if (!is_category(token.c)) return in_.escaped_character(token.c, /*in_set=*/true);
    set.add_category(token.c);
    return std::nullopt;
  }

  [[noreturn]] void bad_range(PatternToken low, PatternToken high) const {
    in_.error(fmt::format("bad character range {}-{}", low.text(), high.text()), low.size() + 1 + high.size());
  }

  void repeat(char32_t sign, size_t start, PatternFlags flags, std::vector<Piece>& pieces) {
    uint64_t low = sign == '+' ? 1 : 0, high = sign == '?' ? 1 : kUnbounded;
    if (sign == '{' && !braces(low, high)) {
      pieces.push_back(plain(sign, flags));
      return;
    }
    const size_t length = in_.position() - start;
    if (pieces.empty() || pieces.back().kind == Piece::Kind::position) in_.error("nothing to repeat", length);
    Piece& piece = pieces.back();
    if (piece.kind == Piece::Kind::repetition) in_.error("multiple repeat", length);
    if (low > kMostRepetitions) in_.error("more than 65535 repetitions are not supported", length);
    // Names are shorter than that, so a greater bound is none.
    const std::string bound = high > kMostRepetitions ? "" : std::to_string(high);
    const bool possessive = in_.sees('+');
    // An assertion is quantified as a group. Each round of Python's possessive repetition is atomic by itself.
    if (possessive || piece.kind == Piece::Kind::assertion)
      piece.text = (possessive ? "(?>" : "(?:") + piece.text + ")";
    piece.text += fmt::format("{{{},{}}}", low, bound);
    if (in_.take('?') || in_.take('+')) piece.text += possessive ? "+" : "?";
    piece.width = piece.width.times(low, high);
    piece.kind = Piece::Kind::repetition;
  }

  /// Reads {m}, {m,}, {,n} or {m,n} behind its brace; anything else stays where it is and means itself.
  bool braces(uint64_t& low, uint64_t& high) {
    if (in_.sees('}')) return false;
    const size_t behind_brace = in_.position();
    const std::u32string first = in_.digits();
    const bool comma = in_.take(',');
    const std::u32string second = comma ? in_.digits() : first;
    if (!in_.take('}')) {
      in_.seek(behind_brace);
      return false;
    }
    if (!first.empty()) low = repetitions(first);
    if (!second.empty()) high = repetitions(second);
    if (high < low) in_.error("min repeat greater than max repeat", in_.position() - behind_brace);
    return true;
  }

  static uint64_t repetitions(std::u32string_view digits) {
    uint64_t number = 0;
    for (const char32_t digit : digits) number = std::min(kUnbounded, 10 * number + (digit - '0'));
    if (number == kUnbounded) throw PatternError("the repetition number is too large", std::nullopt);
    return number;
  }

  /// Everything that begins with a parenthesis, which stood at `start`.
  void group(size_t start, PatternFlags flags, int depth, std::vector<Piece>& pieces) {
    if (!in_.take('?')) {
      pieces.push_back(capture("", start, flags, depth));
      return;
    }
    const PatternToken sign = in_.next("unexpected end of pattern");
    if (sign.is('P')) {
      pieces.push_back(python_extension(start, flags, depth));
    } else if (sign.is('#')) {
      do {
        if (in_.at_end()) in_.error("missing ), unterminated comment", in_.position() - start);
      } while (!in_.next().is(')'));
    } else if (sign.is('=') || sign.is('!') || sign.is('<')) {
      pieces.push_back(lookaround(sign.c, start, flags, depth));
    } else if (sign.is('(')) {
      pieces.push_back(conditional(start, flags, depth));
    } else if (sign.is(':') || sign.is('>')) {
      pieces.push_back(enclosed(sign.is(':') ? "(?:" : "(?>", start, flags, depth));
    } else if (sign.is('-') || PatternReader::is_flag(sign)) {
      const std::optional<PatternFlags> changed = in_.inline_flags(sign, flags);
      if (!changed) in_.error("global flags not at the start of the expression", in_.position() - start);
      pieces.push_back(enclosed("(?:", start, *changed, depth));
    } else {
      in_.error("unknown extension ?" + sign.text(), sign.size() + 1);
    }
  }

  Piece enclosed(const std::string& opening, size_t start, PatternFlags flags, int depth) {
    const Piece inside = alternatives(flags, depth + 1);
    close(start);
    return {opening + inside.text + ")", inside.width};
  }

  void close(size_t start) {
    if (!in_.take(')')) in_.error("missing ), unterminated subpattern", in_.position() - start);
  }

  Piece capture(const std::string& name, size_t start, PatternFlags flags, int depth) {
    const size_t number = groups_.size();
    if (const auto it = names_.find(name); it != names_.end())
      in_.error(fmt::format("redefinition of group name '{}' as group {}; was group {}", name, number, it->second),
                text_length(name) + 1);
    if (!name.empty()) names_[name] = number;
    groups_.emplace_back();
    const Piece piece = enclosed("(", start, flags, depth);
    groups_[number] = {true, piece.width};
    return piece;
  }

  Piece python_extension(size_t start, PatternFlags flags, int depth) {
    if (in_.take('<')) return capture(in_.group_name('>'), start, flags, depth);
    if (in_.take('=')) {
      const std::string name = in_.group_name(')');
      return reference(known_group(name), text_length(name) + 1, flags);
    }
    const PatternToken sign = in_.next("unexpected end of pattern");
    in_.error("unknown extension ?P" + sign.text(), sign.size() + 2);
  }

  size_t known_group(const std::string& name) const {
    const auto it = names_.find(name);
    if (it == names_.end()) in_.error(fmt::format("unknown group name '{}'", name), text_length(name) + 1);
    return it->second;
  }

  Piece lookaround(char32_t sign, size_t start, PatternFlags flags, int depth) {
    std::string opening = "(?";
    const bool behind = sign == '<';
    if (behind) {
      opening += "<";
      const PatternToken direction = in_.next("unexpected end of pattern");
      if (!direction.is('=') && !direction.is('!'))
        in_.error("unknown extension ?<" + direction.text(), direction.size() + 2);
      sign = direction.c;
    }
    opening += static_cast<char>(sign);
    const std::optional<size_t> outer = lookbehind_groups_;
    if (behind && !outer) lookbehind_groups_ = groups_.size();
    const Piece inside = enclosed(opening, start, flags, depth);
    if (behind) lookbehind_groups_ = outer;
    loose_lookbehind_ |= behind && inside.width.least != inside.width.most;
    return {inside.text, {}, Piece::Kind::assertion};
  }

  Piece conditional(size_t start, PatternFlags flags, int depth) {
    const std::u32string condition = in_.until(')', "group name");
    uint64_t number = 0;
    if (PatternReader::is_identifier(condition)) {
      number = known_group(utf8(condition));
    } else {
      number = in_.group_number(condition);
      conditions_.try_emplace(number, in_.position() - condition.size() - 1);
    }
    check_lookbehind(number);
    const Piece yes = sequence(flags, depth + 1);
    Piece no;
    const bool two = in_.take('|');
    if (two) no = sequence(flags, depth + 1);
    if (two && in_.sees('|')) in_.error("conditional backref with more than two branches");
    close(start);
    return {fmt::format("(?({}){}{}{})", number, yes.text, two ? "|" : "", no.text), yes.width.either(no.width)};
  }

  PatternReader in_;
  std::vector<Group> groups_{{}};  ///< group 0 is the whole match, which stays open
  std::map<std::string, size_t> names_;
  std::map<uint64_t, size_t> conditions_;    ///< groups that conditions ask for, with places in the pattern
  std::optional<size_t> lookbehind_groups_;  ///< inside a lookbehind: groups there were before it
  bool loose_lookbehind_ = false;
};

}  // namespace

std::string pcre2_from_python(std::string_view pattern) { return Translator(pattern).translate(); }

}  // namespace qn
