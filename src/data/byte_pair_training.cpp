#include "data/byte_pair_training.h"

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <nlohmann/json.hpp>
#include <queue>
#include <tuple>
#include <unordered_map>

#include "core/error.h"
#include "core/text.h"
#include "data/byte_level.h"
#include "data/byte_pair_model.h"
#include "data/split_lines.h"

namespace qn {
namespace {

using WordCounts = std::unordered_map<std::string_view, int64_t>;

/// A byte's number as a token.
std::array<int32_t, 256> byte_numbers() {
  std::array<int32_t, 256> numbers{};
  for (size_t i = 0; i < numbers.size(); ++i) numbers[byte_level_order()[i]] = static_cast<int32_t>(i);
  return numbers;
}

void count_piece(std::string_view piece, WordPattern::Matcher& matcher, WordCounts& counts) {
  while (!piece.empty()) matcher.for_each(strip(take_line(piece)), [&](std::string_view word) { ++counts[word]; });
}

/// How often every word occurs; words are parts of the texts.
WordCounts count_words(std::span<const std::string_view> texts) {
  std::vector<std::string_view> pieces;
  for (std::string_view text : texts)
    while (!text.empty()) pieces.push_back(take_piece(text));
  WordCounts all;
  std::exception_ptr error;
#pragma omp parallel
  {
    WordCounts counts;
    WordPattern::Matcher matcher(byte_level_words());
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < pieces.size(); ++i) {
      try {
        count_piece(pieces[i], matcher, counts);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
#pragma omp critical
    for (const auto& [word, count] : counts) all[word] += count;
  }
  if (error) std::rethrow_exception(error);
  return all;
}

/// The words of a text as lists of tokens, one behind another in arrays, and where every pair of neighbours is: a merge
/// goes to the places of its pair only. Every merge makes a string of bytes that no other makes, and a pair appears
/// when the newer of its tokens is made: so all its places are known then, and later merges only take some away.
class PairMerger {
 public:
  explicit PairMerger(const WordCounts& words) {
    size_t bytes = 0;
    for (const auto& entry : words) bytes += entry.first.size();
    QN_CHECK(bytes < kNone, "the different words of the training text have {}: make the vocabulary of a part of it",
             format_bytes(bytes));
    for (auto* places : {&next_, &previous_, &word_}) places->reserve(bytes);
    tokens_.reserve(bytes);
    for (const auto& [word, count] : words) add_word(word, count);
    queue_new_pairs();
  }

  struct Merge {
    int64_t count;  ///< how often the pair occurs
    int32_t left, right;
    /// Whether `other` comes first.
    bool operator<(const Merge& other) const {
      return std::tie(count, other.left, other.right) < std::tie(other.count, left, right);
    }
  };

  /// Takes out the most frequent pair; false where none occurs `least` times.
  bool take_best(int64_t least, Merge& best) {
    while (!queue_.empty()) {
      best = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(pair_key(best.left, best.right));
      if (found->second.count == best.count) return best.count >= least;
      best.count = found->second.count;  // others have taken some of its places since
      if (best.count > 0) {
        queue_.push(best);
      } else {
        pairs_.erase(found);
      }
    }
    return false;
  }

  /// Makes the pair the token `id` everywhere.
  void merge(int32_t left, int32_t right, int32_t id) {
    const auto pair = pairs_.extract(pair_key(left, right));
    for (const uint32_t at : pair.mapped().places) {
      if (tokens_[at] != left || next_[at] == kNone || tokens_[next_[at]] != right) continue;
      const uint32_t second = next_[at], before = previous_[at], after = next_[second];
      tokens_[at] = id;
      tokens_[second] = kGone;
      next_[at] = after;
      if (after != kNone) previous_[after] = at;
      const int64_t count = counts_[word_[at]];
      if (before != kNone) {
        remove(tokens_[before], left, count);
        add(tokens_[before], id, count, before);
      }
      if (after != kNone) {
        remove(right, tokens_[after], count);
        add(id, tokens_[after], count, at);
      }
    }
    queue_new_pairs();
  }

 private:
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  static constexpr int32_t kGone = -1;
  struct Pair {
    int64_t count = 0;
    std::vector<uint32_t> places;  // of the left token, rising
  };

  static uint64_t pair_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  void add_word(std::string_view word, int64_t count) {
    const auto begin = static_cast<uint32_t>(tokens_.size()), end = static_cast<uint32_t>(begin + word.size());
    for (uint32_t at = begin; at < end; ++at) {
      tokens_.push_back(number_[static_cast<uint8_t>(word[at - begin])]);
      next_.push_back(at + 1 < end ? at + 1 : kNone);
      previous_.push_back(at > begin ? at - 1 : kNone);
      word_.push_back(static_cast<uint32_t>(counts_.size()));
      if (at > begin) add(tokens_[at - 1], tokens_[at], count, at - 1);
    }
    counts_.push_back(count);
  }

  void add(int32_t left, int32_t right, int64_t count, uint32_t place) {
    const auto [entry, is_new] = pairs_.try_emplace(pair_key(left, right));
    entry->second.count += count;
    entry->second.places.push_back(place);
    if (is_new) new_.push_back({0, left, right});
  }

  void remove(int32_t left, int32_t right, int64_t count) {
    const auto found = pairs_.find(pair_key(left, right));
    if (found != pairs_.end()) found->second.count -= count;  // the pair that is being merged is gone
  }

  void queue_new_pairs() {
    for (Merge& made : new_) {
      made.count = pairs_.at(pair_key(made.left, made.right)).count;
      queue_.push(made);
    }
    new_.clear();
  }

  const std::array<int32_t, 256> number_ = byte_numbers();
  std::vector<int32_t> tokens_;            // kGone: a part of the token before
  std::vector<uint32_t> next_, previous_;  // places in the word; kNone: it ends there
  std::vector<uint32_t> word_;             // that a place belongs to
  std::vector<int64_t> counts_;            // of words
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Merge> queue_;
  std::vector<Merge> new_;  // pairs that are not in the queue yet
};

std::string vocabulary_json(const std::vector<std::string>& tokens) {
  std::string text = "{";
  for (size_t id = 0; id < tokens.size(); ++id)
    text += fmt::format("{}{}:{}", id == 0 ? "" : ",", nlohmann::json(tokens[id]).dump(), id);
  return text + "}\n";
}

}  // namespace

TrainedBytePairs train_byte_pairs(std::span<const std::string_view> texts, const BytePairTraining& training) {
  std::vector<std::string> tokens;
  for (const uint8_t byte : byte_level_order()) tokens.push_back(spelled_byte(byte));
  QN_CHECK_USAGE(training.size >= std::ssize(tokens) && training.size <= kMostTokens,
                 "a vocabulary of byte pairs has {} tokens at least, one per byte, and {} at most; asked for {}",
                 tokens.size(), kMostTokens, training.size);
  TrainedBytePairs result;
  const WordCounts words = count_words(texts);
  QN_CHECK(!words.empty(), "there is no word in the text to make a vocabulary of");
  result.words = std::ssize(words);
  PairMerger merger(words);
  std::string merges = "#version: 0.2\n";
  PairMerger::Merge best{};
  while (std::ssize(tokens) < training.size && merger.take_best(std::max<int64_t>(training.min_frequency, 1), best)) {
    const std::string &left = tokens[static_cast<size_t>(best.left)], &right = tokens[static_cast<size_t>(best.right)];
    merges += fmt::format("{} {}\n", left, right);
    merger.merge(best.left, best.right, static_cast<int32_t>(tokens.size()));
    tokens.push_back(left + right);
    result.frequency = best.count;
  }
  result.size = std::ssize(tokens);
  result.files = {{"vocab.json", vocabulary_json(tokens)}, {"merges.txt", merges}};
  return result;
}

}  // namespace qn
