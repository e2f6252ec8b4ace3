// Scoring with a context window against fairseq-eval-lm.
#include "tasks/scoring.h"

#include <gtest/gtest.h>

#include "compress/coded_representation.h"
#include "compress/packed_model.h"
#include "compress/representation.h"
#include "compress/small_net.h"
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

/// Names of the stored runs.
std::vector<std::string> runs_of(const Hdf5File& file) {
  std::vector<std::string> runs;
  for (const std::string& name : file.members(""))
    if (file.has_attribute(name, "tokens_per_sample")) runs.push_back(name);
  return runs;
}

TEST(EvaluateGolden, ScoresContextAndPerplexity) {
  QN_GOLDEN(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const auto model = load_golden_model(file, "model", DType::f32);
  const std::vector<std::string> runs = runs_of(file);
  ASSERT_FALSE(runs.empty());
  for (const std::string& run : runs) {
    SCOPED_TRACE(run);
    for (const int64_t max_tokens : {int64_t{1}, stream.total_tokens() / 2}) {  // one window a batch, and several
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
      for (const EvalWindow& w : eval_windows(stream, options, model->max_positions()))
        for (int64_t t = 0; t < w.length; ++t)
          ASSERT_EQ(w.context + t + 1, context[static_cast<size_t>(w.begin + t)]) << w.begin + t;
    }
  }
}

TEST(Evaluate, WordsOfBytePairPieces) {
  QN_GOLDEN(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const auto model = load_golden_model(file, "model", DType::f32);
  EvalOptions options{.break_mode = BreakMode::none,
                      .tokens_per_sample = model->max_positions(),
                      .context_window = 0,
                      .max_tokens = stream.total_tokens() / 2,
                      .continues = {}};
  const Score tokens = evaluate(*model, cpu_kernels(), comm(), stream, options);
  options.continues = [](int32_t id) { return id % 2 == 1; };
  const Score words = evaluate(*model, cpu_kernels(), comm(), stream, options);
  EXPECT_EQ(words.tokens, tokens.tokens);
  EXPECT_LT(words.words, tokens.words);
  // The same total log-probability, spread over fewer words.
  EXPECT_TRUE(close(words.base2() * static_cast<double>(words.words),
                    tokens.base2() * static_cast<double>(tokens.words), kSummationTolerance));
}

/// fairseq's data may have words spelled <pad>.
TEST(Evaluate, CountsWhatValidationCounts) {
  QN_GOLDEN(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const auto ids = file.read<int32_t>("stream");
  write_token_stream(dir / "test", file.int_attribute("model", "vocab"), [&](TokenStreamWriter& writer) {
    for (size_t i = 0; i < ids.size(); ++i) writer.add_token(i % 7 == 3 ? kPadId : ids[i]);
    writer.end_sentence();
  });
  const auto stream = std::make_shared<TokenStream>(dir / "test");
  const auto model = load_golden_model(file, "model", DType::f32);
  const int64_t length = model->max_positions() / 2;
  const Score evaluated = evaluate(*model, cpu_kernels(), comm(), *stream,
                                   {.break_mode = BreakMode::none, .tokens_per_sample = length, .continues = {}});
  const LmDataset data(stream, {BreakMode::none, length});
  const Score validated = validate(*model, cpu_kernels(), comm(), data,
                                   freeze_batches("test", data.lengths(), {.limits = {.max_tokens = 4 * length}}));
  EXPECT_LT(evaluated.tokens, stream->total_tokens());
  EXPECT_EQ(evaluated.tokens, validated.tokens);
  EXPECT_TRUE(close(evaluated.base2(), validated.base2(), kLossTolerance));
}

/// As many ranks as there are share the windows; every one of them multiplies the same codes.
TEST(Evaluate, FromCodesOnAnyNumberOfRanks) {
  QN_GOLDEN(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const auto decoded = load_golden_model(file, "model", DType::f32),
             coded = load_golden_model(file, "model", DType::f32);
  RepresentationSwap swap(*decoded, CentroidGradient::sum);
  for (const auto& w : decoded->weights().all())
    swap.replace(*w, quantized(*w, *quantizer_from_text("pq block_size=4 n_centroids=16", "")));
  swap.finish();
  write_packed(dir / "packed", *decoded, {}, {.side = ValueStorage::f32, .dense = ValueStorage::f32});
  load_packed(*coded, dir / "packed");
  const EvalOptions options{.break_mode = BreakMode::none,
                            .tokens_per_sample = coded->max_positions() / 2,
                            .context_window = 2,
                            .max_tokens = coded->max_positions(),
                            .continues = {}};
  const Score here = evaluate(*coded, cpu_kernels(), comm(), stream, options);
  const Score alone = evaluate(*coded, cpu_kernels(), *make_local_communicator(), stream, options);
  const Score dense = evaluate(*decoded, cpu_kernels(), *make_local_communicator(), stream, options);
  EXPECT_NE(describe_coded(*coded), "");
  EXPECT_EQ(here.tokens, alone.tokens);
  EXPECT_TRUE(close(here.base2(), alone.base2(), kLossTolerance));
  EXPECT_TRUE(close(here.base2(), dense.base2(), kLossTolerance));
}

TEST(Evaluate, RefusesWhatDoesNotFit) {
  QN_GOLDEN(path, "eval_lm.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream = write_stream(file, dir / "test");
  const int64_t positions = stream.total_tokens() / 2;
  const auto windows = [&](int64_t tokens_per_sample, int64_t context_window) {
    return eval_windows(
        stream, {.tokens_per_sample = tokens_per_sample, .context_window = context_window, .continues = {}}, positions);
  };
  EXPECT_NO_THROW(windows(positions, 0));
  EXPECT_THROW(windows(positions, positions), Error);
  EXPECT_THROW(windows(positions + 1, 0), Error);
}

}  // namespace
}  // namespace qn::test
