// Beam search: against fairseq's on real models, and on tables of probabilities that can be followed by hand.
#include "models/beam_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/special_tokens.h"
#include "golden_seq2seq.h"
#include "models/seq2seq_tokens.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using Ids = std::vector<int32_t>;
using Doubles = std::vector<double>;

/// Row b of a stored [B, beam, T], hypothesis h, up to its end mark.
Ids stored_tokens(const Hdf5File& file, const std::string& dataset, int64_t b, int64_t h) {
  const Shape shape = file.shape(dataset);
  const Ids all = read_ids(file, dataset);
  const auto begin = all.begin() + (b * shape[1] + h) * shape[2];
  return {begin, std::find(begin, begin + shape[2], kEosId) + 1};
}

void check_search(const Hdf5File& file, const std::string& model_group, const std::string& group) {
  SCOPED_TRACE(group);
  const std::string generate = model_group + "/generate";
  const auto real = [&](const char* name) { return file.float_attribute(group, name); };
  BeamSearchConfig config;
  config.beam = file.int_attribute(group, "beam");
  config.length_penalty = real("lenpen");
  config.unk_penalty = real("unk_penalty");
  config.min_length = file.int_attribute(group, "min_len");
  // fairseq's length is that of the padded batch.
  const Shape padded = file.shape(generate + "/src_tokens");
  const auto longest = std::min(static_cast<int64_t>(real("max_len_a") * static_cast<double>(padded[1]) +
                                                     static_cast<double>(file.int_attribute(group, "max_len_b"))),
                                file.int_attribute(generate, "max_target_positions") - 1);
  const auto model = load_golden_seq2seq(file, model_group + "/model", DType::f32);
  const RealTokens source(file, generate + "/src_tokens");
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  Seq2SeqTokens tokens(*model, tape, source.tokens, source.sequences());
  const std::vector<int64_t> limits(source.begins.size(), longest);
  const auto results = beam_search(tokens, limits, config);

  const Shape shape = file.shape(group + "/tokens");
  const auto counts = file.read<int64_t>(group + "/n_hypotheses");
  const auto scores = file.read<double>(group + "/scores"),
             positional = file.read<double>(group + "/positional_scores");
  ASSERT_EQ(std::ssize(results), shape[0]);
  for (int64_t b = 0; b < shape[0]; ++b) {
    const auto& found = results[static_cast<size_t>(b)];
    ASSERT_EQ(std::ssize(found), counts[static_cast<size_t>(b)]);
    for (int64_t h = 0; h < std::ssize(found); ++h) {
      const BeamHypothesis& hypothesis = found[static_cast<size_t>(h)];
      EXPECT_EQ(hypothesis.tokens, stored_tokens(file, group + "/tokens", b, h)) << b << ' ' << h;
      EXPECT_NEAR(hypothesis.score, scores[static_cast<size_t>(b * shape[1] + h)], 1e-5);
      for (size_t t = 0; t < hypothesis.tokens.size(); ++t)
        EXPECT_NEAR(hypothesis.positional_scores[t], positional[static_cast<size_t>((b * shape[1] + h) * shape[2]) + t],
                    1e-5);
    }
  }
}

TEST(BeamSearchGolden, EverySearch) {
  QN_GOLDEN(path, "seq2seq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int searches = 0;
  for (const std::string& model : file.members("")) {
    if (!file.exists(model + "/generate")) continue;
    for (const std::string& name : file.members(model + "/generate"))
      if (name.starts_with("search_")) {
        check_search(file, model, model + "/generate/" + name);
        ++searches;
      }
  }
  EXPECT_EQ(searches, 18);
}

TEST(BeamSearchGolden, TokenByTokenGivesTheSameLogits) {
  QN_GOLDEN(path, "seq2seq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  for (const std::string name : {"postnorm_shared", "prenorm_separate"}) {
    const auto model = load_golden_seq2seq(file, name + "/model", DType::f32);
    const RealTokens source(file, name + "/generate/src_tokens");
    const Shape shape = file.shape(name + "/generate/incremental_prev_output_tokens");
    const Ids previous = read_ids(file, name + "/generate/incremental_prev_output_tokens");
    const Doubles logits = file.read<double>(name + "/generate/incremental_logits");
    Arena arena;
    Tape tape(cpu_kernels(), arena, DType::f32, {});
    Seq2SeqTokens tokens(*model, tape, source.tokens, source.sequences());
    Ids rows;
    for (int64_t b = 0; b < shape[0]; ++b) rows.push_back(static_cast<int32_t>(b));
    for (int64_t t = 0; t < shape[1]; ++t) {
      Ids step;
      for (int64_t b = 0; b < shape[0]; ++b) step.push_back(previous[static_cast<size_t>(b * shape[1] + t)]);
      const Tensor scores = tokens.next(step, rows, rows);
      for (int64_t b = 0; b < shape[0]; ++b) {
        const auto words = scores.cols();
        const double* expected = logits.data() + (b * shape[1] + t) * words;
        double sum = 0.0;
        for (int64_t c = 0; c < words; ++c) sum += std::exp(expected[c]);
        for (int64_t c = 0; c < words; ++c)
          ASSERT_NEAR(scores.as<float>()[b * words + c], expected[c] - std::log(sum), 2e-5) << name << ' ' << t;
      }
    }
  }
}

/// The next word depends on the last one only.
class Chain : public TokenModel {
 public:
  /// Rows of probabilities by last word, of which <pad> has none.
  explicit Chain(std::vector<Doubles> table) : table_(std::move(table)) {}
  int64_t vocabulary() const override { return std::ssize(table_); }
  Tensor next(std::span<const int32_t> tokens, std::span<const int32_t>, std::span<const int32_t>) override {
    ++steps;
    largest = std::max(largest, tokens.size());
    scores_ = OwnedTensor({std::ssize(tokens), vocabulary()}, DType::f64);
    double* out = scores_.view().as<double>();
    for (const int32_t token : tokens)
      for (const double p : table_[static_cast<size_t>(token)]) *out++ = std::log(p);
    return scores_.view();
  }
  int steps = 0;
  size_t largest = 0;

 private:
  std::vector<Doubles> table_;
  OwnedTensor scores_;
};

// Words: <s>, <pad>, </s>, <unk>, a = 4, b = 5.
Chain chain() {
  return Chain({{0, 0, 1, 0, 0, 0},
                {0, 0, 1, 0, 0, 0},
                {0, 0, 0.1, 0.1, 0.5, 0.3},
                {0, 0, 1, 0, 0, 0},
                {0, 0, 0.2, 0, 0.5, 0.3},    // behind a
                {0, 0, 0.9, 0, 0.1, 0.0}});  // behind b
}

std::vector<BeamHypothesis> search(Chain& model, const BeamSearchConfig& config, int64_t longest = 4) {
  const std::vector<int64_t> limits{longest};
  return beam_search(model, limits, config)[0];
}

TEST(BeamSearch, GreedyTakesTheBestWord) {
  Chain model = chain();
  const auto found = search(model, {.beam = 1});
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].tokens, (Ids{4, 4, 4, 4, 2}));  // a, until the end is forced
  EXPECT_NEAR(found[0].score, (4 * std::log(0.5) + std::log(0.2)) / 5, 1e-12);
  EXPECT_EQ(model.steps, 5);
}

TEST(BeamSearch, AWiderBeamFindsWhatGreedyMisses) {
  Chain model = chain();
  const auto found = search(model, {.beam = 2, .length_penalty = 0.0});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].tokens, (Ids{5, 2}));
  EXPECT_NEAR(found[0].score, std::log(0.3 * 0.9), 1e-12);
  EXPECT_THAT(found[0].positional_scores,
              testing::Pointwise(testing::DoubleNear(1e-12), Doubles{std::log(0.3), std::log(0.9)}));
  EXPECT_EQ(found[1].tokens, (Ids{4, 5, 2}));
  EXPECT_LE(model.largest, 2U);
}

TEST(BeamSearch, RepeatsNoRuns) {
  Chain model = chain();
  EXPECT_EQ(search(model, {.beam = 1, .no_repeat_ngram = 2})[0].tokens, (Ids{4, 4, 5, 2}));
  EXPECT_EQ(search(model, {.beam = 1, .no_repeat_ngram = 1})[0].tokens, (Ids{4, 5, 2}));
}

TEST(BeamSearch, LengthsAndUnknownWords) {
  Chain model = chain();
  EXPECT_EQ(search(model, {.beam = 1}, 0)[0].tokens, (Ids{2}));
  for (const BeamHypothesis& h : search(model, {.beam = 2, .length_penalty = 0.0, .min_length = 3}))
    EXPECT_GE(h.tokens.size(), 4U);
  EXPECT_EQ(search(model, {.beam = 1, .unk_penalty = -5.0})[0].tokens, (Ids{3, 2}));
  // Fewer words than candidates: nothing impossible is returned.
  for (const BeamHypothesis& h : search(model, {.beam = 9})) EXPECT_GT(h.score, -100.0);
}

TEST(BeamSearch, SentencesEndOneByOne) {
  Chain model = chain();
  const std::vector<int64_t> limits{1, 3, 0};
  const auto found = beam_search(model, limits, {.beam = 1});
  EXPECT_EQ(found[0][0].tokens, (Ids{4, 2}));
  EXPECT_EQ(found[1][0].tokens, (Ids{4, 4, 4, 2}));
  EXPECT_EQ(found[2][0].tokens, (Ids{2}));
}

}  // namespace
}  // namespace qn::test
