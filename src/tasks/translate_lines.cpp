// Lines of text, or of a split, to their translations.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/text.h"
#include "core/work_progress.h"
#include "models/seq2seq_tokens.h"
#include "tasks/bleu.h"
#include "tasks/generate_config.h"
#include "tasks/line_reader.h"
#include "tasks/translation.h"

namespace qn {
namespace {

/// Where the length may grow with the source's, only lines tell.
void check_lengths(const GenerateConfig& config) {
  QN_CHECK_USAGE(config.max_length_a > 0.0 || config.min_length <= config.max_length_b,
                 "--min-length {} and --max-length-b {} leave no length that a translation may have", config.min_length,
                 config.max_length_b);
}

}  // namespace

std::vector<std::vector<BeamHypothesis>> Translation::search(const std::vector<std::vector<int32_t>>& sources,
                                                             const GenerateConfig& config, const Kernels& kernels,
                                                             DType dtype) {
  std::vector<size_t> order(sources.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sources[a].size() > sources[b].size(); });
  std::vector<std::vector<BeamHypothesis>> results(sources.size());
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  const auto at_once = static_cast<size_t>(config.batch);
  for (size_t first = 0; first < order.size(); first += at_once) {
    tell_work(static_cast<int64_t>(first), std::ssize(order));
    const std::span<const size_t> group(order.data() + first, std::min(at_once, order.size() - first));
    JoinedSentences joined;
    std::vector<int64_t> longest;
    for (const size_t i : group) {
      joined.add(sources[i]);
      const double most =
          config.max_length_a * static_cast<double>(sources[i].size()) + static_cast<double>(config.max_length_b);
      longest.push_back(std::min(static_cast<int64_t>(most), model_->max_positions() - 1));
    }
    tape.restart({});
    Seq2SeqTokens tokens(*model_, tape, joined.tokens, {joined.begins, joined.lengths, joined.longest});
    std::vector<std::vector<BeamHypothesis>> found = beam_search(tokens, longest, config);
    for (size_t i = 0; i < group.size(); ++i) {
      QN_CHECK(!found[i].empty(), "the model gives no probabilities (not a number): it is of no use");
      results[group[i]] = std::move(found[i]);
    }
    arena.reset();
  }
  return results;
}

namespace {

void check_length(size_t tokens, int64_t most, const std::string& name) {
  QN_CHECK(static_cast<int64_t>(tokens) <= most,
           "{} has {} tokens, the model reads at most {} (model.max_positions): shorten it", name, tokens, most);
}

}  // namespace

std::vector<std::vector<Generated>> Translation::generate(const std::string& data, std::span<const std::string> lines,
                                                          const GenerateConfig& config, const Kernels& kernels,
                                                          DType dtype) {
  config.refuse({"temperature", "top_k", "top_p", "seed", "unknown_words", "max_length", "samples"},
                "is for language models; this model translates");
  check_lengths(config);
  const Vocabulary& words = vocabulary(data);
  LineReader ids(words.source_dictionary(), words.tokenizer.get());
  std::vector<std::vector<int32_t>> sources;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string name = line_name(config.lines_before, i);
    sources.push_back(ids.read(lines[i], name));
    check_length(sources.back().size(), model_->max_positions(), name);
  }
  std::vector<std::vector<Generated>> results;
  for (const std::vector<BeamHypothesis>& found : search(sources, config, kernels, dtype)) {
    std::vector<Generated>& best = results.emplace_back();
    for (const BeamHypothesis& hypothesis : found)
      best.push_back(
          {words.text_of(hypothesis.tokens, config.bpe_marker), hypothesis.score, hypothesis.positional_scores});
  }
  return results;
}

TranslationReport Translation::generate_split(const std::string& data, const std::string& split,
                                              const GenerateConfig& config, const Kernels& kernels, DType dtype) {
  check_lengths(config);
  const std::string folder = folder_of(data);
  const Vocabulary& words = vocabulary(folder);
  const ParallelText text(ParallelFolder(folder), split);
  std::vector<std::vector<int32_t>> sources;
  for (int64_t i = 0; i < text.size(); ++i) {
    sources.push_back(text.source(i));
    check_length(sources.back().size(), model_->max_positions(), fmt::format("line {} of {}", i + 1, split));
  }
  TranslationReport result;
  Bleu bleu;
  const auto found = search(sources, config, kernels, dtype);
  for (int64_t i = 0; i < text.size(); ++i) {
    result.lines.push_back(words.text_of(found[static_cast<size_t>(i)][0].tokens, config.bpe_marker));
    bleu.add(result.lines.back(), words.text_of(text.target(i), config.bpe_marker));
  }
  const auto precisions = bleu.precisions();
  result.report = {
      .amount = group_digits(text.size()) + " lines",
      .result = fmt::format("BLEU {:.2f} ({:.1f}/{:.1f}/{:.1f}/{:.1f}, brevity {:.3f}, {} words for {})", bleu.score(),
                            precisions[0], precisions[1], precisions[2], precisions[3], bleu.brevity_penalty(),
                            group_digits(bleu.translation_words()), group_digits(bleu.reference_words())),
      .fields = {{"lines", text.size()},
                 {"bleu", bleu.score()},
                 {"brevity_penalty", bleu.brevity_penalty()},
                 {"words", bleu.translation_words()},
                 {"reference_words", bleu.reference_words()}}};
  return result;
}

}  // namespace qn
