// What a classifier of sentences says of lines of text.
#include <algorithm>
#include <cmath>
#include <filesystem>

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
  SentenceBatchData batch;
  for (size_t i = 0; i < lines.size(); ++i)
    batch.sentences.add(read_line(words, *pairs_, lines[i], fmt::format("line {}", i + 1), how));
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  const Var logits = model_->sentence_logits(tape, view_of(batch.sentences));
  const std::vector<double> values = host_doubles(tape, logits.value);
  const auto classes = static_cast<size_t>(logits.value.cols());
  std::vector<Prediction> predictions;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::span own(values.data() + i * classes, classes);
    if (regression()) {
      predictions.push_back({fmt::format("{:.6g}", own[0]), {}});
      continue;
    }
    const std::vector<double> p = softmax(own);
    Prediction& prediction = predictions.emplace_back();
    prediction.label = labels_[static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin())];
    for (size_t c = 0; c < classes; ++c) prediction.probabilities.emplace_back(labels_[c], p[c]);
  }
  return predictions;
}

}  // namespace qn
