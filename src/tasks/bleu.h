// BLEU as sacreBLEU computes it by default: one reference per line, tokenisation 13a (that of NIST's mteval-v13a), sums
// over the corpus, exponential smoothing (Papineni et al., BLEU, ACL 2002; Post, A Call for Clarity, WMT 2018).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn {

/// Words of a line of UTF-8: punctuation stands alone, but for points and commas between digits.
std::vector<std::string> tokenize_13a(std::string_view line);

class Bleu {
 public:
  static constexpr size_t kOrders = 4;

  /// Counts a line of a translation and its reference.
  void add(std::string_view translation, std::string_view reference);
  /// 0 to 100.
  double score() const;
  /// Percent of the translations' runs of 1 to 4 words that are in their references.
  std::array<double, kOrders> precisions() const;
  double brevity_penalty() const;
  int64_t translation_words() const { return translation_words_; }
  int64_t reference_words() const { return reference_words_; }

 private:
  std::array<int64_t, kOrders> matches_{}, totals_{};
  int64_t translation_words_ = 0, reference_words_ = 0;
};

}  // namespace qn
