// Encoder-decoder models against fairseq: states, log-probabilities, losses and gradients, in float, double and bf16.
#include "models/seq2seq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "golden_seq2seq.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using Doubles = std::vector<double>;

constexpr PassOptions kEvaluation{}, kRecording{.recording = true};

/// Every batch with features: "postnorm_shared/caseA" of the model "postnorm_shared/model".
std::vector<GoldenCase> pair_cases(const Hdf5File& file) {
  std::vector<GoldenCase> cases;
  for (const std::string& parent : file.members(""))
    for (const std::string& name : file.members(parent))
      if (file.exists(parent + "/" + name + "/features")) cases.push_back({parent + "/model", parent + "/" + name});
  return cases;
}

/// Part i of `count` of a stored tensor.
Doubles part(const Doubles& values, size_t i, size_t count) {
  const auto size = static_cast<int64_t>(values.size() / count);
  return {values.begin() + static_cast<int64_t>(i) * size, values.begin() + static_cast<int64_t>(i + 1) * size};
}

Doubles log_softmax(Doubles logits, size_t words) {
  for (size_t row = 0; row < logits.size(); row += words) {
    double sum = 0.0;
    for (size_t c = 0; c < words; ++c) sum += std::exp(logits[row + c]);
    for (size_t c = 0; c < words; ++c) logits[row + c] -= std::log(sum);
  }
  return logits;
}

void expect_states(const std::vector<Tensor>& states, const RealTokens& tokens, const Doubles& stored) {
  for (size_t i = 0; i < states.size(); ++i)
    EXPECT_TRUE(close(to_doubles(states[i]), tokens.kept(part(stored, i, states.size())), kForwardTolerance))
        << "state " << i;
}

void check_states(const Hdf5File& file, const GoldenCase& c) {
  const auto model = load_golden_seq2seq(file, c.model, DType::f32);
  const auto pass = make_pair_pass(file, c.batch, DType::f32, kEvaluation);
  std::vector<Tensor> source_states, target_states;
  const Encoded encoded = model->encode(*pass->tape, pass->batch.source, pass->batch.sources, &source_states);
  expect_states(source_states, pass->source, file.read<double>(c.batch + "/encoder_states"));
  EXPECT_TRUE(close(to_doubles(encoded.states.value), pass->source.kept(file.read<double>(c.batch + "/encoder_out")),
                    kForwardTolerance));
  const Var features = model->features(*pass->tape, pass->batch, encoded, &target_states);
  expect_states(target_states, pass->target, file.read<double>(c.batch + "/decoder_states"));
  EXPECT_TRUE(close(to_doubles(features.value), pass->target.kept(file.read<double>(c.batch + "/features")),
                    kForwardTolerance));
  const Doubles logits = pass->target.kept(file.read<double>(c.batch + "/logits"));
  const auto words = static_cast<size_t>(model->target_vocabulary());
  EXPECT_TRUE(close(to_doubles(model->head().log_probabilities(*pass->tape, features)), log_softmax(logits, words),
                    kForwardTolerance));
}

void check_losses(const Hdf5File& file, const GoldenCase& c, DType dtype, const std::string& suffix, double loss,
                  double gradient) {
  const double smoothing = file.float_attribute(c.batch, "label_smoothing");
  const auto model = load_golden_seq2seq(file, c.model, dtype);
  const auto plain = make_pair_pass(file, c.batch, dtype, kEvaluation);
  EXPECT_TRUE(close(run_pairs(*model, *plain, 0.0), file.read<double>(c.batch + "/nll_loss" + suffix)[0], loss));
  const auto pass = make_pair_pass(file, c.batch, dtype, kRecording);
  EXPECT_TRUE(close(run_pairs(*model, *pass, smoothing), file.read<double>(c.batch + "/loss" + suffix)[0], loss));
  expect_gradients(file, c.batch + "/grads" + suffix, *model, gradient);
}

void check_bf16(const Hdf5File& file, const GoldenCase& c) {
  const auto model = load_golden_seq2seq(file, c.model, DType::f32);
  const ModelConfig config = golden_seq2seq_config(file, c.model);
  const Bfloat16Model tolerance{config.encoder_layers + config.layers, true};
  const auto pass = make_pair_pass(file, c.batch, DType::bf16, kRecording);
  const double loss = run_pairs(*model, *pass, file.float_attribute(c.batch, "label_smoothing"));
  EXPECT_NEAR(loss, file.read<double>(c.batch + "/loss")[0], 0.02 * loss);
  expect_bf16_gradients(file, c.batch + "/grads", *model, tolerance);
}

TEST(Seq2SeqGolden, StatesLossesAndGradients) {
  QN_GOLDEN(path, "seq2seq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<GoldenCase> cases = pair_cases(file);
  EXPECT_GE(cases.size(), 3U);
  for (const GoldenCase& c : cases) {
    SCOPED_TRACE(c.batch);
    check_states(file, c);
    check_losses(file, c, DType::f32, "", kLossTolerance, kGradientTolerance);
    if (file.exists(c.batch + "/grads_f64"))
      check_losses(file, c, DType::f64, "_f64", kDoubleTolerance, kDoubleTolerance);
    check_bf16(file, c);
  }
}

TEST(Seq2Seq, SharesOneTableOfOneVocabularyOnly) {
  ModelConfig config(ModelType::transformer);
  config.share_all_embeddings = true;
  EXPECT_NO_THROW(make_seq2seq(config, 10, 10));
  EXPECT_THROW(make_seq2seq(config, 10, 11), UsageError);
}

/// A small model with values of its own.
std::unique_ptr<Seq2Seq> small_model(ModelConfig config) {
  config.embed_dim = 8;
  config.ffn_dim = 12;
  config.heads = 2;
  config.layers = 2;
  auto model = make_seq2seq(config, 20, 15);
  model->parameters().allocate(DType::f32);
  model->parameters().initialize(7);
  return model;
}

TEST(Seq2Seq, DropsTheDecodersLayersBehindTheEncoders) {
  ModelConfig config(ModelType::transformer);
  config.dropout = 0.0;
  config.layerdrop = 0.5;
  const auto model = small_model(config);
  const std::vector<int32_t> source{5, 6, 2, 7, 2}, previous{2, 4, 2}, target{4, 2, 2};
  const std::vector<int32_t> begins{0, 3}, lengths{3, 2}, target_begins{0, 2}, target_lengths{2, 1};
  const PairBatch batch{source, {begins, lengths, 3}, previous, target, {target_begins, target_lengths, 2}};
  std::vector<size_t> layers_run;
  for (uint32_t update = 0; update < 150; ++update) {
    Arena arena;
    Tape tape(cpu_kernels(), arena, DType::f32, {.training = true, .update = update});
    std::vector<Tensor> source_states, target_states;
    const Encoded encoded = model->encode(tape, source, batch.sources, &source_states);
    model->features(tape, batch, encoded, &target_states);
    layers_run.push_back(3 * (source_states.size() - 1) + target_states.size() - 1);
  }
  for (size_t both = 0; both < 9; ++both)  // each number of layers meets each number of the other side
    EXPECT_GT(std::count(layers_run.begin(), layers_run.end(), both), 0) << both;
}

}  // namespace
}  // namespace qn::test
