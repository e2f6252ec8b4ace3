#include "tasks/scoring.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/profiler.h"
#include "core/special_tokens.h"
#include "core/work_progress.h"
#include "ops/host_access.h"

namespace qn {
namespace {

struct Rows {
  int64_t rows = 0, cols = 0;
  std::vector<int32_t> source, target;
};

/// Inputs are the stream delayed by one with </s> in front; only the block's own targets are scored.
Rows collate(const TokenStream& stream, std::span<const EvalWindow> windows) {
  Rows r{.rows = static_cast<int64_t>(windows.size()), .cols = 0, .source = {}, .target = {}};
  for (const EvalWindow& w : windows) r.cols = std::max(r.cols, w.context + w.length);
  r.source.assign(static_cast<size_t>(r.rows * r.cols), kPadId);
  r.target.assign(r.source.size(), kPadId);
  for (int64_t i = 0; i < r.rows; ++i) {
    const EvalWindow& w = windows[static_cast<size_t>(i)];
    int32_t* source = r.source.data() + i * r.cols;
    const int64_t first = w.begin - w.context, total = w.context + w.length;
    if (first == 0) {
      source[0] = kEosId;
      stream.tokens(0, total - 1, source + 1);
    } else {
      stream.tokens(first - 1, total, source);
    }
    stream.tokens(w.begin, w.length, r.target.data() + i * r.cols + w.context);
  }
  return r;
}

}  // namespace

double Score::base2() const { return loss / static_cast<double>(words) / std::numbers::ln2; }
double Score::perplexity() const { return std::exp2(base2()); }
double Score::token_perplexity() const { return std::exp(loss / static_cast<double>(tokens)); }

Score score_batches(LanguageModel& model, const Kernels& kernels, Communicator& comm, DType dtype, int64_t count,
                    const std::function<ScoredBatch(int64_t)>& batch) {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  Score score;
  for (int64_t i = comm.rank(); i < count; i += comm.size()) {
    tell_work(i, count);
    const ScoredBatch scored = batch(i);
    tape.restart({});
    const HostView losses(kernels, model.losses(tape, scored.batch));
    scored.add(losses.span<double>(), score);
    arena.reset();
  }
  score.loss = comm.all_reduce_sum_value(score.loss);
  score.tokens = comm.all_reduce_sum_value(score.tokens);
  score.words = comm.all_reduce_sum_value(score.words);
  return score;
}

Score validate(LanguageModel& model, const Kernels& kernels, Communicator& comm, const LmDataset& data,
               const BatchList& batches, DType dtype) {
  Batch batch;
  return score_batches(model, kernels, comm, dtype, batches.size(), [&](int64_t i) {
    batch = data.collate(batches[i]);
    const auto add = [&](std::span<const double> losses, Score& score) {
      for (const double loss : losses) score.loss += loss;
      score.tokens += batch.tokens;
      score.words += batch.tokens;
    };
    return ScoredBatch{view_of(batch), add};
  });
}

std::vector<EvalWindow> eval_windows(const TokenStream& stream, const EvalOptions& options, int64_t max_positions) {
  const int64_t block = options.tokens_per_sample - options.context_window;
  QN_CHECK_USAGE(
      options.context_window >= 0 && block >= 1,
      "--context-window {} leaves no room in inputs of {} tokens: it must be smaller than --tokens-per-sample",
      options.context_window, options.tokens_per_sample);
  QN_CHECK(options.break_mode != BreakMode::complete_doc, "break mode complete_doc leaves tokens out: use complete");
  const TokenBlocks blocks(stream, {options.break_mode, block});
  std::vector<EvalWindow> windows;
  for (int64_t i = 0; i < blocks.size(); ++i) {
    const BlockRange range = blocks.range(i);
    const int64_t room = std::max<int64_t>(options.tokens_per_sample - range.length, 0);
    windows.push_back({range.begin, range.length, std::min({options.context_window, range.begin, room})});
    const int64_t total = windows.back().context + range.length;
    QN_CHECK(total <= max_positions,
             "an input of {} tokens exceeds the model's {} positions: lower --tokens-per-sample{}", total,
             max_positions, range.length > block ? " or use --break-mode none (this sentence alone is too long)" : "");
  }
  return windows;
}

Score evaluate(LanguageModel& model, const Kernels& kernels, Communicator& comm, const TokenStream& stream,
               const EvalOptions& options, std::span<double> scores) {
  const std::vector<EvalWindow> windows = eval_windows(stream, options, model.max_positions());
  const auto per_batch = static_cast<size_t>(std::max<int64_t>(1, options.max_tokens / options.tokens_per_sample));
  const size_t batches = (windows.size() + per_batch - 1) / per_batch;
  Rows rows;
  return score_batches(model, kernels, comm, options.dtype, static_cast<int64_t>(batches), [&](int64_t b) {
    const size_t first = static_cast<size_t>(b) * per_batch;
    const std::span group(windows.data() + first, std::min(per_batch, windows.size() - first));
    rows = collate(stream, group);
    const auto add = [&options, &rows, group, scores](std::span<const double> losses, Score& score) {
      for (size_t i = 0; i < group.size(); ++i)
        for (int64_t t = 0; t < group[i].length; ++t) {
          const auto at = static_cast<size_t>(static_cast<int64_t>(i) * rows.cols + group[i].context + t);
          if (rows.target[at] == kPadId) continue;  // as in validation; its loss is 0
          score.loss += losses[at];
          ++score.tokens;
          if (!options.continues || !options.continues(rows.target[at])) ++score.words;
          if (!scores.empty()) scores[static_cast<size_t>(group[i].begin + t)] = -losses[at];
        }
    };
    return ScoredBatch{{rows.rows, rows.cols, rows.source, rows.target}, add};
  });
}

}  // namespace qn
