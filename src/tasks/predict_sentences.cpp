// What a classifier of sentences says of lines of text.
#include <algorithm>

#include "core/text.h"
#include "tasks/classes.h"
#include "tasks/line_reader.h"
#include "tasks/sentence_prediction.h"

namespace qn {
namespace {

LineBatches::Item read_line(LineReader& reader, bool pairs, const std::string& line, const std::string& name,
                            const SentenceInputs& how) {
  const size_t tab = line.find('\t');
  QN_CHECK(std::count(line.begin(), line.end(), '\t') == (pairs ? 1 : 0), "{}: this model takes {}", name,
           pairs ? "two sentences with a tabulator between them, and no other tabulators"
                 : "one sentence in a line, without tabulators");
  const std::vector<int32_t> first = reader.read(std::string_view(line).substr(0, tab), name);
  const std::vector<int32_t> second =
      pairs ? reader.read(std::string_view(line).substr(tab + 1), name) : std::vector<int32_t>();
  return {how.compose(first, second, pairs), how.second_begin(first.size(), second.size())};
}

}  // namespace

std::vector<Prediction> SentencePrediction::predict(const std::string& data, std::span<const std::string> lines,
                                                    const Kernels& kernels, DType dtype, int64_t lines_before) {
  const Vocabulary& words = vocabulary(data);
  // An import does not say what it takes: what its first line is, all have to be.
  if (!pairs_ && !lines.empty()) pairs_ = lines.front().find('\t') != std::string::npos;
  SentenceInputs how = inputs(blueprint().tokens_per_sample);
  if (how.shorten == Shorten::none) how.shorten = Shorten::truncate;  // there has to be an answer
  LineReader reader(words.dictionary, words.tokenizer.get());
  std::vector<LineBatches::Item> items;
  for (size_t i = 0; i < lines.size(); ++i)
    items.push_back(read_line(reader, *pairs_, lines[i], line_name(lines_before, i), how));
  std::vector<Prediction> predictions;
  for (const std::vector<double>&logits :
       batches_.rows(items, kernels, dtype,
                     [this](Tape&tape, const SentenceBatch&batch) { return model_->sentence_logits(tape, batch); }))
    predictions.push_back(prediction_of(logits));
  return predictions;
}

Prediction SentencePrediction::prediction_of(std::span<const double> logits) const {
  if (regression()) return {fmt::format("{:.6g}", logits[0]), {}};
  return most_likely(logits, labels_);
}

}  // namespace qn
