// Scoring a token stream with a context window (reference section 8).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "data/token_blocks.h"
#include "models/language_model.h"

namespace qn {

struct EvalOptions {
  BreakMode break_mode = BreakMode::none;
  int64_t tokens_per_sample = 512;  ///< longest input, context included
  int64_t context_window = 0;       ///< tokens of context before each block; blocks are shorter by as much
  int64_t max_tokens = 8192;        ///< per batch, padding included
  DType dtype = DType::f32;         ///< of activations; see ops/kernels.h
  /// Marks ids that are continued by the next token (BPE pieces ending in a marker): normalisation is then per word.
  std::function<bool(int32_t)> continues;
};

struct EvalResult {
  double loss = 0.0;  ///< natural log, summed
  int64_t tokens = 0;
  int64_t words = 0;                ///< tokens that end a word; equals tokens without BPE
  double base2() const;             ///< bits per word
  double perplexity() const;        ///< 2^base2
  double token_perplexity() const;  ///< normalised by tokens
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
EvalResult evaluate(LanguageModel& model, const Kernels& kernels, Communicator& comm, const TokenStream& stream,
                    const EvalOptions& options, std::span<double> scores = {});

}  // namespace qn
