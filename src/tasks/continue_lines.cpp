// What a language model writes behind lines of text: drawn token by token, or found by a search.
#include <algorithm>
#include <exception>
#include <limits>

#include "core/text.h"
#include "models/lm_tokens.h"
#include "tasks/generate_config.h"
#include "tasks/language_modeling.h"
#include "tasks/line_reader.h"

namespace qn {
namespace {

// A step computes little: its memory should not be more than the model's.
constexpr size_t kArenaBlock = size_t{2} << 20;

/// A text that is being written.
struct Draft {
  std::vector<int32_t> tokens;  // the end mark, the prompt, what was drawn
  size_t read = 0;              // so many of them has the model read
  size_t window = 0;            // what it remembers begins here
  RandomStream random;
  Generated* result = nullptr;
  int64_t drawn = 0;
};

/// The tokens that the model is to read next. Where no more fit its positions, it begins anew with the last half.
std::span<const int32_t> unread(Draft& draft, int64_t positions) {
  const auto most = static_cast<size_t>(positions), all = draft.tokens.size();
  if (all - draft.window > most) draft.read = draft.window = all - std::max<size_t>(most / 2, 1);
  return std::span(draft.tokens).subspan(draft.read);
}

/// One token more for each.
class Step {
 public:
  Step(LmTokens& model, const GenerateConfig& config) : model_(model), config_(config) {}

  void operator()(std::vector<Draft*>& live) {
    std::vector<int32_t> tokens, counts, parents;
    for (size_t i = 0; i < live.size(); ++i) {
      const std::span<const int32_t> next = unread(*live[i], model_.max_positions());
      tokens.insert(tokens.end(), next.begin(), next.end());
      counts.push_back(static_cast<int32_t>(next.size()));
      parents.push_back(live[i]->read == live[i]->window ? -1 : rows_[i]);
    }
    const Tensor scores = model_.next(tokens, counts, parents);
    std::vector<int32_t> token(live.size());
    std::vector<std::exception_ptr> problems(live.size());
    const auto count = static_cast<int64_t>(live.size());
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i) try {
        const Draft& draft = *live[static_cast<size_t>(i)];
        const Tensor row = scores.row_slice(i, 1);
        token[static_cast<size_t>(i)] = draw(choices(row, config_, draft.drawn >= config_.min_length),
                                             draft.random.uniform(static_cast<uint64_t>(draft.drawn)));
      } catch (...) {
        problems[static_cast<size_t>(i)] = std::current_exception();
      }
    for (const std::exception_ptr& problem : problems)
      if (problem) std::rethrow_exception(problem);
    take(live, token, scores);
  }

 private:
  /// Adds the tokens; texts that are complete are live no more.
  void take(std::vector<Draft*>& live, const std::vector<int32_t>& token, const Tensor& scores) {
    std::vector<Draft*> rest;
    rows_.clear();
    for (size_t i = 0; i < live.size(); ++i) {
      Draft& draft = *live[i];
      const int64_t place = static_cast<int64_t>(i) * scores.cols() + token[i];
      const double log_p = scores.dtype == DType::f64 ? scores.as<double>()[place] : scores.as<float>()[place];
      draft.read = draft.tokens.size();
      draft.tokens.push_back(token[i]);
      ++draft.drawn;
      draft.result->token_scores.push_back(log_p);
      draft.result->score += log_p;
      draft.result->finished = token[i] == kEosId;
      if (draft.result->finished || draft.drawn >= config_.max_length) continue;
      rest.push_back(&draft);
      rows_.push_back(static_cast<int32_t>(i));
    }
    live = std::move(rest);
  }

  LmTokens& model_;
  const GenerateConfig& config_;
  std::vector<int32_t> rows_;  // of the live texts in the step before
};

/// Lines as the model reads them, behind the end of the line before.
std::vector<std::vector<int32_t>> read_prompts(const Vocabulary& words, std::span<const std::string> lines,
                                               int64_t lines_before) {
  LineReader reader(words.dictionary, words.tokenizer.get());
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < lines.size(); ++i) {
    std::vector<int32_t> ids = reader.read(lines[i], line_name(lines_before, i));
    std::rotate(ids.begin(), ids.end() - 1, ids.end());
    prompts.push_back(std::move(ids));
  }
  return prompts;
}

using Texts = std::vector<std::vector<Generated>>;

Texts sample(TransformerLm& model, const Vocabulary& words, const std::vector<std::vector<int32_t>>& prompts,
             const GenerateConfig& config, const Kernels& kernels, DType dtype) {
  Texts texts(prompts.size());
  std::vector<Draft> drafts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    texts[i].resize(static_cast<size_t>(config.samples));
    for (size_t s = 0; s < texts[i].size(); ++s)
      drafts.push_back({.tokens = prompts[i],
                        .random = RandomStream({.seed = static_cast<uint64_t>(config.seed),
                                                .purpose = Purpose::sampling,
                                                .id = static_cast<uint64_t>(config.lines_before) + i,
                                                .update = static_cast<uint32_t>(s)}),
                        .result = &texts[i][s]});
  }
  Arena arena(*kernels.memory, kArenaBlock);
  Tape tape(kernels, arena, dtype, {});
  const auto at_once = static_cast<size_t>(config.batch);
  for (size_t first = 0; first < drafts.size(); first += at_once) {
    std::vector<Draft*> live;
    for (size_t i = first; i < std::min(first + at_once, drafts.size()); ++i) live.push_back(&drafts[i]);
    tape.restart({});
    LmTokens tokens(model, tape);
    for (Step step(tokens, config); !live.empty();) step(live);
    arena.reset();
  }
  for (const Draft& draft : drafts) draft.result->text = words.text_of(draft.tokens, config.bpe_marker);
  return texts;
}

Texts search(TransformerLm& model, const Vocabulary& words, const std::vector<std::vector<int32_t>>& prompts,
             const GenerateConfig& config, const Kernels& kernels, DType dtype) {
  BeamSearchConfig how = config;
  if (!config.unknown_words) how.unk_penalty = std::numeric_limits<double>::infinity();
  Texts texts(prompts.size());
  Arena arena(*kernels.memory, kArenaBlock);
  Tape tape(kernels, arena, dtype, {});
  const auto at_once = static_cast<size_t>(config.batch);
  for (size_t first = 0; first < prompts.size(); first += at_once) {
    const std::vector<std::vector<int32_t>> group(
        prompts.begin() + static_cast<std::ptrdiff_t>(first),
        prompts.begin() + static_cast<std::ptrdiff_t>(std::min(first + at_once, prompts.size())));
    std::vector<int64_t> longest;
    for (size_t i = 0; i < group.size(); ++i) {
      const int64_t room = model.max_positions() - std::ssize(group[i]);
      QN_CHECK_USAGE(room > 0, "line {} has {} tokens, a search takes at most {} (the model's positions): shorten it",
                     config.lines_before + static_cast<int64_t>(first + i) + 1, std::ssize(group[i]),
                     model.max_positions() - 1);
      longest.push_back(std::min(config.max_length - 1, room));
    }
    tape.restart({});
    LmTokens tokens(model, tape);
    PromptedTokens prompted(tokens, group, words.dictionary.size());
    const std::vector<std::vector<BeamHypothesis>> found = beam_search(prompted, longest, how);
    for (size_t i = 0; i < group.size(); ++i) {
      QN_CHECK(!found[i].empty(), "the model gives no probabilities (not a number): it is of no use");
      for (const BeamHypothesis& hypothesis : found[i]) {
        std::vector<int32_t> all = group[i];
        all.insert(all.end(), hypothesis.tokens.begin(), hypothesis.tokens.end());
        texts[first + i].push_back({words.text_of(all, config.bpe_marker), hypothesis.score,
                                    hypothesis.positional_scores, std::ssize(hypothesis.tokens) <= longest[i]});
      }
    }
    arena.reset();
  }
  return texts;
}

}  // namespace

TransformerLm& LanguageModeling::decoder() {
  auto* model = dynamic_cast<TransformerLm*>(model_.get());
  QN_CHECK_USAGE(model != nullptr, "this type of language model cannot go on token by token");
  return *model;
}

Texts LanguageModeling::generate(const std::string& data, std::span<const std::string> lines,
                                 const GenerateConfig& config, const Kernels& kernels, DType dtype) {
  config.refuse({"max_length_a", "max_length_b"}, "is for translations; for language models there is --max-length");
  const bool searches = config.given.contains("beam");
  if (searches)
    config.refuse({"temperature", "top_k", "top_p", "seed", "samples"}, "is for drawing tokens: leave out --beam");
  else
    config.refuse({"length_penalty", "unk_penalty", "no_repeat_ngram", "best"},
                  "is for a search: name the width of its beam (--beam), or else leave it out");
  QN_CHECK_USAGE(config.min_length <= config.max_length,
                 "--min-length {} and --max-length {}, which counts the end mark, leave no length that a text may have",
                 config.min_length, config.max_length);
  const Vocabulary& words = vocabulary(data);
  return (searches ? search : sample)(decoder(), words, read_prompts(words, lines, config.lines_before), config,
                                      kernels, dtype);
}

TranslationReport LanguageModeling::generate_split(const std::string&, const std::string&, const GenerateConfig&,
                                                   const Kernels&, DType) {
  throw UsageError("--split is for translations; a language model goes on from lines of text (--text)");
}

}  // namespace qn
