#include "models/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/special_tokens.h"

namespace qn {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// A hypothesis that goes on. Its tokens begin with the end mark, from which the search starts.
struct Live {
  std::vector<int32_t> tokens{kEosId};
  std::vector<double> positional_scores;
  double score = 0.0;
  int32_t row = 0;  // in the call of the model
};

struct Candidate {
  double score, own;  // of the whole hypothesis; of the token
  size_t parent;
  int32_t token;
};

/// The best of all candidates offered, best first; of equal ones the first.
class Best {
 public:
  explicit Best(size_t count) : count_(count) {}
  bool wants(double score) const { return score > kNever && (kept_.size() < count_ || score > kept_.back().score); }
  void offer(const Candidate& candidate) {
    const auto behind = std::upper_bound(kept_.begin(), kept_.end(), candidate,
                                         [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    kept_.insert(behind, candidate);
    if (kept_.size() > count_) kept_.pop_back();
  }
  const std::vector<Candidate>& kept() const { return kept_; }

 private:
  size_t count_;
  std::vector<Candidate> kept_;
};

/// Words that would complete a run of n tokens that is there already.
std::vector<int32_t> completions(const std::vector<int32_t>& tokens, int64_t n) {
  std::vector<int32_t> found;
  const auto before = n - 1, count = std::ssize(tokens);
  if (n <= 0 || count < before) return found;
  for (int64_t i = 0; i + before < count; ++i)
    if (std::equal(tokens.begin() + i, tokens.begin() + i + before, tokens.end() - before))
      found.push_back(tokens[static_cast<size_t>(i + before)]);
  return found;
}

/// The search for one sentence.
class Sentence {
 public:
  Sentence(int64_t longest, const BeamSearchConfig& config)
      : longest_(longest), config_(config), beam_(static_cast<size_t>(config.beam)) {}

  std::vector<Live>& live() { return live_; }
  bool finished() const { return live_.empty(); }

  /// One step, `scores` having a row of log p for each live hypothesis, from its own row on.
  template <typename P>
  void step(const P* scores, int64_t words, int64_t done) {
    Best best(2 * beam_);
    for (size_t i = 0; i < live_.size(); ++i) offer_words(best, i, scores + live_[i].row * words, words, done);
    std::vector<Live> next;
    for (size_t rank = 0; rank < best.kept().size(); ++rank) {
      const Candidate& candidate = best.kept()[rank];
      if (candidate.token != kEosId && next.size() < beam_)
        next.push_back(continued(candidate));
      else if (candidate.token == kEosId && rank < beam_ && done_.size() < beam_)
        finish(candidate);
    }
    if (done_.size() == beam_ || done == longest_) next.clear();
    live_ = std::move(next);
  }

  std::vector<BeamHypothesis> results() {
    std::stable_sort(done_.begin(), done_.end(),
                     [](const BeamHypothesis& a, const BeamHypothesis& b) { return a.score > b.score; });
    return std::move(done_);
  }

 private:
  template <typename P>
  void offer_words(Best& best, size_t parent, const P* log_p, int64_t words, int64_t done) {
    const Live& live = live_[parent];
    const auto offer = [&](int32_t word) {
      if (word == kPadId) return;
      double own = static_cast<double>(log_p[word]);
      if (word == kUnkId) own -= config_.unk_penalty;
      const double score = live.score + own;
      if (best.wants(score)) best.offer({score, own, parent, word});
    };
    if (done == longest_) return offer(kEosId);
    const std::vector<int32_t> forbidden = completions(live.tokens, config_.no_repeat_ngram);
    for (int32_t word = 0; word < words; ++word) {
      if (word == kEosId && done < config_.min_length) continue;
      if (!forbidden.empty() && word != kEosId &&
          std::find(forbidden.begin(), forbidden.end(), word) != forbidden.end())
        continue;
      offer(word);
    }
  }

  Live continued(const Candidate& candidate) const {
    Live next = live_[candidate.parent];
    next.tokens.push_back(candidate.token);
    next.positional_scores.push_back(candidate.own);
    next.score = candidate.score;
    return next;
  }

  void finish(const Candidate& candidate) {
    Live last = continued(candidate);
    last.tokens.erase(last.tokens.begin());
    const auto length = static_cast<double>(last.tokens.size());
    done_.push_back({std::move(last.tokens), std::move(last.positional_scores),
                     last.score / std::pow(length, config_.length_penalty)});
  }

  int64_t longest_;
  const BeamSearchConfig& config_;
  size_t beam_;
  std::vector<Live> live_{Live{}};
  std::vector<BeamHypothesis> done_;
};

}  // namespace

std::vector<std::vector<BeamHypothesis>> beam_search(TokenModel& model, std::span<const int64_t> longest,
                                                     const BeamSearchConfig& config) {
  std::vector<Sentence> sentences;
  for (const int64_t most : longest) sentences.emplace_back(most, config);
  std::vector<int32_t> tokens, parents, owners;
  for (int64_t done = 0;; ++done) {
    tokens.clear(), parents.clear(), owners.clear();
    for (size_t i = 0; i < sentences.size(); ++i)
      for (Live& live : sentences[i].live()) {
        parents.push_back(live.row);
        live.row = static_cast<int32_t>(tokens.size());
        tokens.push_back(live.tokens.back());
        owners.push_back(static_cast<int32_t>(i));
      }
    if (tokens.empty()) break;
    const Tensor scores = model.next(tokens, parents, owners);
    const auto count = static_cast<int64_t>(sentences.size());
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i) {
      Sentence& sentence = sentences[static_cast<size_t>(i)];
      if (sentence.finished()) continue;
      scores.dtype == DType::f64 ? sentence.step(scores.as<double>(), scores.cols(), done)
                                 : sentence.step(scores.as<float>(), scores.cols(), done);
    }
  }
  std::vector<std::vector<BeamHypothesis>> results;
  for (Sentence& sentence : sentences) results.push_back(sentence.results());
  return results;
}

void BeamSearchConfig::visit(ConfigVisitor& v) {
  v.field("beam", beam, "hypotheses kept at a time (1: greedy)");
  v.field("length_penalty", length_penalty,
          "scores are divided by length^length_penalty: below 1 favours short translations, above 1 long ones");
  v.field("unk_penalty", unk_penalty, "taken off the score of unknown words");
  v.field("min_length", min_length, "shortest translation, without its end mark");
  v.field("no_repeat_ngram", no_repeat_ngram, "runs of so many tokens do not come twice (0: they may)");
}

void BeamSearchConfig::validate(const ConfigChecker& c) const {
  constexpr int64_t kMostBeams = 1000;
  c.check(beam >= 1 && beam <= kMostBeams, "beam", "must be in 1 to {}, got {}", kMostBeams, beam);
  for (const auto& [key, value] : {std::pair{"length_penalty", length_penalty}, {"unk_penalty", unk_penalty}})
    c.check(std::isfinite(value), key, "must be finite, got {}", value);
  c.check(min_length >= 0, "min_length", "must not be negative, got {}", min_length);
  c.check(no_repeat_ngram >= 0, "no_repeat_ngram", "must not be negative, got {}", no_repeat_ngram);
}

}  // namespace qn
