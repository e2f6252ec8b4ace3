// What a classifier of sentences says of lines of text.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/text.h"
#include "ops/host_access.h"
#include "tasks/line_reader.h"
#include "tasks/masked_lm.h"
#include "tasks/sentence_prediction.h"

namespace qn {
namespace {

std::vector<double> softmax(std::span<const double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  double sum = 0.0;
  for (const double logit : logits) sum += p.emplace_back(std::exp(logit - largest));
  for (double& value : p) value /= sum;
  return p;
}

constexpr int64_t kBatchTokens = 1024;  // what a layer computes of so many stays in the processor's cache

/// Numbers of items, short ones first: batches of similar lengths are the same work for all threads.
std::vector<size_t> by_length(const std::vector<std::vector<int32_t>>& items) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return items[a].size() < items[b].size(); });
  return order;
}

std::vector<int32_t> read_line(const Vocabulary& words, bool pairs, const std::string& line, const std::string& name,
                               const SentenceInputs& how) {
  const size_t tab = line.find('\t');
  QN_CHECK((tab != std::string::npos) == pairs, "{}: this model takes {}", name,
           pairs ? "two sentences with a tabulator between them" : "one sentence in a line, without tabulators");
  LineReader reader(words.dictionary, words.tokenizer.get());
  const std::vector<int32_t> first = reader.read(std::string_view(line).substr(0, tab), name);
  const std::vector<int32_t> second =
      pairs ? reader.read(std::string_view(line).substr(tab + 1), name) : std::vector<int32_t>();
  return how.compose(first, second, pairs);
}

}  // namespace

std::vector<Prediction> SentencePrediction::predict(const std::string& data, std::span<const std::string> lines,
                                                    const Kernels& kernels, DType dtype) {
  const Vocabulary& words = vocabulary(data);
  QN_CHECK(pairs_,
           "this model's file does not say whether it takes pairs of sentences: name the folder of prepared "
           "data (--data FOLDER)");
  SentenceInputs how = inputs(blueprint().tokens_per_sample);
  how.shorten = Shorten::truncate;  // there has to be an answer
  std::vector<std::vector<int32_t>> inputs_of_lines;
  for (size_t i = 0; i < lines.size(); ++i)
    inputs_of_lines.push_back(read_line(words, *pairs_, lines[i], fmt::format("line {}", i + 1), how));
  return answers(inputs_of_lines, kernels, dtype);
}

/// All batches are one pass of a tape, so weights are decoded once; a batch has the memory of the one before.
std::vector<Prediction> SentencePrediction::answers(const std::vector<std::vector<int32_t>>& items,
                                                    const Kernels& kernels, DType dtype) {
  if (arena_memory_ != kernels.memory) arena_ = std::make_unique<Arena>(*kernels.memory);
  arena_memory_ = kernels.memory;
  arena_->reset();
  Tape tape(kernels, *arena_, dtype, {});
  JoinedSentences shortest;  // after it the values of all weights lie below the mark
  shortest.add(std::array{kBosId, kEosId});
  model_->sentence_logits(tape, view_of(shortest));
  const Arena::Mark weights = arena_->mark();
  std::vector<Prediction> predictions(items.size());
  const std::vector<size_t> order = by_length(items);
  for (size_t begin = 0; begin < order.size();) {
    JoinedSentences batch;
    size_t end = begin;
    for (; end < order.size(); ++end) {
      const std::vector<int32_t>& next = items[order[end]];
      if (end > begin && std::ssize(batch.tokens) + std::ssize(next) > kBatchTokens) break;
      batch.add(next);
    }
    const std::vector<double> logits = host_doubles(tape, model_->sentence_logits(tape, view_of(batch)).value);
    const size_t classes = logits.size() / (end - begin);
    for (size_t i = begin; i < end; ++i)
      predictions[order[i]] = prediction_of({logits.data() + (i - begin) * classes, classes});
    arena_->rewind(weights);
    begin = end;
  }
  return predictions;
}

Prediction SentencePrediction::prediction_of(std::span<const double> logits) const {
  if (regression()) return {fmt::format("{:.6g}", logits[0]), {}};
  const std::vector<double> p = softmax(logits);
  Prediction prediction{labels_[static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin())], {}};
  for (size_t c = 0; c < p.size(); ++c) prediction.probabilities.emplace_back(labels_[c], p[c]);
  return prediction;
}

}  // namespace qn
