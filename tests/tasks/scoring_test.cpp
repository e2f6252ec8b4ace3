// Scoring with a context window against fairseq-eval-lm.
#include "tasks/scoring.h"

#include <gtest/gtest.h>

#include "data/token_stream.h"
#include "models/golden_model.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

TokenStream write_stream(const Hdf5File& file, const std::filesystem::path& prefix) {
  const auto ids = file.read<int32_t>("stream");
  const auto sizes = file.read<int64_t>("sentence_sizes");
  write_token_stream(prefix, file.int_attribute("model", "vocab"), [&](TokenStreamWriter& writer) {
    size_t at = 0;
    for (const int64_t size : sizes) {
      for (int64_t i = 0; i < size; ++i) writer.add_token(ids[at++]);
      writer.end_sentence();
    }
  });
  return TokenStream(prefix);
}

TEST(EvaluateGolden, ScoresContextAndPerplexity) {
  QN_GOLDEN_OR_SKIP(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const auto model = load_golden_model(file, "model", DType::f32);
  for (const std::string run : {"none_T32_c0", "none_T32_c16", "none_T32_c28", "eos_T32_c0", "complete_T40_c16"}) {
    SCOPED_TRACE(run);
    for (const int64_t max_tokens : {1, 200}) {  // one window a batch, and several
      const EvalOptions options{
          .break_mode = value_named<BreakMode>(file.string_attribute(run, "break_mode"), "break_mode"),
          .tokens_per_sample = file.int_attribute(run, "tokens_per_sample"),
          .context_window = file.int_attribute(run, "context_window"),
          .max_tokens = max_tokens,
          .continues = {}};
      std::vector<double> scores(static_cast<size_t>(stream.total_tokens()));
      const Score result = evaluate(*model, cpu_kernels(), comm(), stream, options, scores);
      EXPECT_EQ(result.tokens, file.int_attribute(run, "count"));
      EXPECT_TRUE(close(result.base2(), file.float_attribute(run, "loss_base2"), kLossTolerance));
      EXPECT_TRUE(close(result.perplexity(), file.float_attribute(run, "perplexity"), kLossTolerance * 4));
      const auto expected = file.read<double>(run + "/score");
      for (size_t i = 0; i < scores.size() && comm().size() == 1; ++i)
        ASSERT_NEAR(scores[i], expected[i], kScoreTolerance) << i;
      const auto context = file.read<int64_t>(run + "/context");
      for (const EvalWindow& w : eval_windows(stream, options, 48))
        for (int64_t t = 0; t < w.length; ++t)
          ASSERT_EQ(w.context + t + 1, context[static_cast<size_t>(w.begin + t)]) << w.begin + t;
    }
  }
}

TEST(Evaluate, WordsOfBytePairPieces) {
  QN_GOLDEN_OR_SKIP(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const auto model = load_golden_model(file, "model", DType::f32);
  EvalOptions options{
      .break_mode = BreakMode::none, .tokens_per_sample = 32, .context_window = 0, .max_tokens = 256, .continues = {}};
  const Score tokens = evaluate(*model, cpu_kernels(), comm(), stream, options);
  options.continues = [](int32_t id) { return id % 2 == 1; };
  const Score words = evaluate(*model, cpu_kernels(), comm(), stream, options);
  EXPECT_EQ(words.tokens, tokens.tokens);
  EXPECT_LT(words.words, tokens.words);
  // The same total log-probability, spread over fewer words.
  EXPECT_TRUE(close(words.base2() * static_cast<double>(words.words),
                    tokens.base2() * static_cast<double>(tokens.words), kSummationTolerance));
}

TEST(Evaluate, RefusesWhatDoesNotFit) {
  QN_GOLDEN_OR_SKIP(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  EXPECT_THROW(eval_windows(stream, {.tokens_per_sample = 32, .context_window = 32, .continues = {}}, 48), Error);
  EXPECT_THROW(eval_windows(stream, {.tokens_per_sample = 64, .context_window = 0, .continues = {}}, 48), Error);
}

}  // namespace
}  // namespace qn::test
