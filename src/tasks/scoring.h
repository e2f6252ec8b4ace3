// The scorer of language models: validation while training, and `eval` with a context window (reference section 8).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "data/batching.h"
#include "data/lm_dataset.h"
#include "data/token_blocks.h"
#include "models/language_model.h"

namespace qn {

inline TokenBatch view_of(const Batch& batch) { return {batch.rows, batch.cols, batch.source, batch.target}; }

/// Loss sums over a text, all ranks together.
struct Score {
  double loss = 0.0;  ///< natural log, summed
  int64_t tokens = 0;
  int64_t words = 0;                ///< tokens that end a word; equals tokens without BPE
  double base2() const;             ///< bits per word
  double perplexity() const;        ///< 2^base2
  double token_perplexity() const;  ///< normalised by tokens
};

/// A batch to score, and what its losses are for. Both live until the next batch is asked for.
struct ScoredBatch {
  TokenBatch batch;
  /// Called with the loss of every position of the batch, 0 where there is no target; adds them to the score.
  std::function<void(std::span<const double> losses, Score& score)> add;
};

/// Scores `count` batches with activations of type `dtype`: rank r takes batches r, r + size, ...; collective.
Score score_batches(LanguageModel& model, const Kernels& kernels, Communicator& comm, DType dtype, int64_t count,
                    const std::function<ScoredBatch(int64_t)>& batch);

/// The batches of a data set; every block counts exactly once.
Score validate(LanguageModel& model, const Kernels& kernels, Communicator& comm, const LmDataset& data,
               const BatchList& batches, DType dtype = DType::f32);

struct EvalOptions {
  BreakMode break_mode = BreakMode::none;
  int64_t tokens_per_sample = 512;  ///< longest input, context included
  int64_t context_window = 0;       ///< tokens of context before each block; blocks are shorter by as much
  int64_t max_tokens = 8192;        ///< per batch, padding included
  DType dtype = DType::f32;         ///< of activations; see ops/kernels.h
  /// Marks ids that are continued by the next token (BPE pieces ending in a marker): normalisation is then per word.
  std::function<bool(int32_t)> continues;
};

/// One block's input: `context` stream tokens before it, then the block.
struct EvalWindow {
  int64_t begin = 0, length = 0, context = 0;
};

/// The windows that tile the stream. Throws qn::Error when options do not fit, or a sentence is longer than the model's
/// positions.
std::vector<EvalWindow> eval_windows(const TokenStream& stream, const EvalOptions& options, int64_t max_positions);

/// Scores every token of the stream exactly once; ranks share the windows. `scores`, if not empty, has the stream's
/// length and receives log p of each token (of this rank's windows; others stay untouched).
Score evaluate(LanguageModel& model, const Kernels& kernels, Communicator& comm, const TokenStream& stream,
               const EvalOptions& options, std::span<double> scores = {});

}  // namespace qn
