#include "tasks/bleu.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace qn {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// ASCII punctuation that always stands alone; points, commas, hyphens and apostrophes do not.
bool stands_alone(char c) {
  return (c >= '!' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool is_point(char c) { return c == '.' || c == ','; }

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
}

/// Where first(a) and second(b) hold for two characters side by side, they become before + a + between + b + after.
/// Pairs do not overlap.
template <typename First, typename Second>
std::string space_out(const std::string& text, const First& first, const Second& second, std::string_view before,
                      std::string_view after) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !first(text[i]) || !second(text[i + 1])) {
      result += text[i];
      continue;
    }
    result.append(before).append(1, text[i]).append(1, ' ').append(1, text[i + 1]).append(after);
    ++i;
  }
  return result;
}

/// Bytes of white space, in Unicode's sense, that `text` begins with.
size_t leading_space(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  if ((byte(0) >= 0x09 && byte(0) <= 0x0d) || (byte(0) >= 0x1c && byte(0) <= 0x20)) return 1;
  if (byte(0) == 0xc2 && (byte(1) == 0x85 || byte(1) == 0xa0)) return 2;
  const unsigned three = byte(0) << 16 | byte(1) << 8 | byte(2);
  const bool wide = three == 0xe19a80 || (three >= 0xe28080 && three <= 0xe2808a) || three == 0xe280a8 ||
                    three == 0xe280a9 || three == 0xe280af || three == 0xe2819f || three == 0xe38080;
  return wide ? 3 : 0;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  while (!text.empty()) {
    const size_t space = leading_space(text);
    if (space == 0) {
      if (!inside) words.emplace_back();
      words.back() += text[0];
    }
    inside = space == 0;
    text.remove_prefix(std::max<size_t>(space, 1));
  }
  return words;
}

using Run = std::vector<std::string>;

std::map<Run, int64_t> count_runs(const std::vector<std::string>& words, size_t n) {
  std::map<Run, int64_t> counts;
  for (size_t i = 0; i + n <= words.size(); ++i)
    ++counts[Run(words.begin() + static_cast<int64_t>(i), words.begin() + static_cast<int64_t>(i + n))];
  return counts;
}

}  // namespace

std::vector<std::string> tokenize_13a(std::string_view line) {
  std::string text(line);
  replace_all(text, "<skipped>", "");
  for (const auto& [entity, character] : {std::pair{"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}})
    replace_all(text, entity, character);
  std::string spaced = " ";
  for (const char c : text) stands_alone(c) ? spaced.append(1, ' ').append(1, c).append(1, ' ') : spaced.append(1, c);
  spaced += ' ';
  const auto is_other = [](char c) { return !is_digit(c); };
  spaced = space_out(spaced, is_other, is_point, "", " ");
  spaced = space_out(spaced, is_point, is_other, " ", "");
  spaced = space_out(
      spaced, is_digit, [](char c) { return c == '-'; }, "", " ");
  return split_words(spaced);
}

void Bleu::add(std::string_view translation, std::string_view reference) {
  const std::vector<std::string> words = tokenize_13a(translation), wanted = tokenize_13a(reference);
  translation_words_ += std::ssize(words);
  reference_words_ += std::ssize(wanted);
  for (size_t n = 1; n <= kOrders; ++n) {
    const std::map<Run, int64_t> there = count_runs(wanted, n);
    for (const auto& [run, count] : count_runs(words, n)) {
      totals_[n - 1] += count;
      if (const auto found = there.find(run); found != there.end()) matches_[n - 1] += std::min(count, found->second);
    }
  }
}

std::array<double, Bleu::kOrders> Bleu::precisions() const {
  std::array<double, kOrders> result{};
  if (matches_ == std::array<int64_t, kOrders>{}) return result;
  double smoothing = 1.0;
  for (size_t n = 0; n < kOrders && totals_[n] > 0; ++n) {
    if (matches_[n] == 0) smoothing *= 2.0;
    const double matches = matches_[n] > 0 ? static_cast<double>(matches_[n]) : 1.0 / smoothing;
    result[n] = 100.0 * matches / static_cast<double>(totals_[n]);
  }
  return result;
}

double Bleu::brevity_penalty() const {
  if (translation_words_ == 0) return 0.0;
  const double ratio = static_cast<double>(reference_words_) / static_cast<double>(translation_words_);
  return ratio > 1.0 ? std::exp(1.0 - ratio) : 1.0;
}

double Bleu::score() const {
  double sum = 0.0;
  for (const double precision : precisions()) {
    if (precision == 0.0) return 0.0;
    sum += std::log(precision);
  }
  return brevity_penalty() * std::exp(sum / static_cast<double>(kOrders));
}

}  // namespace qn
