// The decoder against fairseq's outputs, losses and gradients, in float and double.
#include "models/transformer_lm.h"

#include <gtest/gtest.h>

#include "golden_model.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

/// Rows of [B * T, width] whose token is not padding.
std::vector<double> real_rows(const std::vector<double>& values, const std::vector<int32_t>& tokens) {
  const size_t width = values.size() / tokens.size();
  std::vector<double> kept;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] != kPadId)
      kept.insert(kept.end(), values.begin() + static_cast<int64_t>(i * width),
                  values.begin() + static_cast<int64_t>((i + 1) * width));
  return kept;
}

void expect_rows(const Tensor& actual, const Hdf5File& file, const std::string& dataset, const GoldenPass& pass) {
  EXPECT_TRUE(close(real_rows(to_doubles(actual), pass.tokens), real_rows(file.read<double>(dataset), pass.tokens),
                    kForwardTolerance))
      << dataset;
}

void check_forward(const Hdf5File& file, TransformerLm& model, const std::string& group) {
  auto pass = make_pass(file, group, DType::f32, false);
  std::vector<Tensor> states;
  const Var features = model.features(*pass->tape, pass->batch, &states);
  expect_rows(features.value, file, group + "/features", *pass);
  if (file.exists(group + "/inner_states")) {
    const auto stored = file.read<double>(group + "/inner_states");
    const size_t size = stored.size() / states.size();
    for (size_t i = 0; i < states.size(); ++i) {
      const std::vector<double> expected(stored.begin() + static_cast<int64_t>(i * size),
                                         stored.begin() + static_cast<int64_t>((i + 1) * size));
      EXPECT_TRUE(
          close(real_rows(to_doubles(states[i]), pass->tokens), real_rows(expected, pass->tokens), kForwardTolerance))
          << group << " state " << i;
    }
  }
  const Tensor log_probabilities = model.head().log_probabilities(*pass->tape, features);
  if (file.exists(group + "/log_prob_full")) expect_rows(log_probabilities, file, group + "/log_prob_full", *pass);
  if (file.exists(group + "/logits")) {
    auto logits = file.read<double>(group + "/logits");
    const Tensor expected = view_of(logits.data(), log_probabilities.shape);
    cpu_kernels().log_softmax(expected, expected);
    EXPECT_TRUE(close(real_rows(to_doubles(log_probabilities), pass->tokens), real_rows(logits, pass->tokens),
                      kForwardTolerance));
  }
  run_loss(model, *pass);
  std::vector<double> target_log_probability = file.read<double>(group + "/log_prob_target");
  for (double& v : target_log_probability) v = -v;
  EXPECT_TRUE(close(pass->losses, target_log_probability, kForwardTolerance));
}

/// Activations in bf16, parameters in float.
void check_bf16(const Hdf5File& file, const std::string& model_group, const std::string& group) {
  const auto model = load_golden_model(file, model_group, DType::f32);
  const Bfloat16Model tolerance = bf16_tolerance(file, model_group);
  auto forward = make_pass(file, group, DType::bf16, false);
  const Var features = model->features(*forward->tape, forward->batch);
  const auto expect_close = [&](const Tensor& actual, const std::string& dataset) {
    EXPECT_TRUE(close_in_norm(real_rows(to_doubles(actual), forward->tokens),
                              real_rows(file.read<double>(dataset), forward->tokens), tolerance.forward()))
        << dataset;
  };
  expect_close(features.value, group + "/features");
  const Tensor log_probabilities = model->head().log_probabilities(*forward->tape, features);
  EXPECT_EQ(log_probabilities.dtype, DType::f32);
  if (file.exists(group + "/log_prob_full")) expect_close(log_probabilities, group + "/log_prob_full");
  auto pass = make_pass(file, group, DType::bf16, true);
  run_loss(*model, *pass);
  EXPECT_TRUE(close(pass->loss, file.read<double>(group + "/loss")[0], kBfloat16LossTolerance));
  expect_bf16_gradients(file, group + "/grads", *model, tolerance);
}

void check_case(const Hdf5File& file, const std::string& model_group, const std::string& group) {
  SCOPED_TRACE(group);
  const auto model = load_golden_model(file, model_group, DType::f32);
  check_forward(file, *model, group);
  check_bf16(file, model_group, group);
  auto pass = make_pass(file, group, DType::f32, true);
  run_loss(*model, *pass);
  EXPECT_TRUE(close(pass->loss, file.read<double>(group + "/loss")[0], kLossTolerance));
  expect_gradients(file, group + "/grads", *model, kGradientTolerance);
  if (!file.exists(group + "/grads_f64")) return;
  const auto exact = load_golden_model(file, model_group, DType::f64);
  auto exact_pass = make_pass(file, group, DType::f64, true);
  run_loss(*exact, *exact_pass);
  EXPECT_TRUE(close(exact_pass->loss, file.read<double>(group + "/loss_f64")[0], kDoubleTolerance));
  expect_gradients(file, group + "/grads_f64", *exact, kDoubleTolerance);
}

void check_all_cases(const std::filesystem::path& path) {
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<GoldenCase> cases = golden_cases(file);
  ASSERT_FALSE(cases.empty()) << path;
  for (const GoldenCase& c : cases) check_case(file, c.model, c.batch);
}

constexpr int64_t kWidth = 32;

ModelConfig small_model(bool prenorm) {
  ModelConfig config;
  config.layers = 3;
  config.embed_dim = config.input_dim = config.output_dim = kWidth;
  config.ffn_dim = 2 * kWidth;
  config.heads = 4;
  config.prenorm = prenorm;
  config.adaptive = {
      .cutoffs = {20, 60}, .factor = 4, .input = true, .softmax = true, .tie_weights = true, .tie_projections = true};
  return config;
}

/// Evaluation works on some rows at a time, in the memory of one layer: losses are those of a pass that keeps all. In
/// bf16 weights compute something once in a pass: casts, which must survive the rows they were computed with.
TEST(TransformerLm, LongTextsInLittleMemory) {
  constexpr int64_t kTokens = 650, kRows = 2 * kTokens, kPart = 512;  // rows at a time
  std::vector<int32_t> source, target;
  for (int32_t i = 0; i < kRows; ++i)
    source.push_back(4 + i * 37 % 190), target.push_back(i % 11 == 0 ? kPadId : 4 + i * 53 % 190);
  for (const bool prenorm : {true, false})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("prenorm {}, {}", prenorm, name_of(dtype)));
      TransformerLm model(small_model(prenorm), 200);
      model.allocate(DType::f32, cpu_kernels());
      model.parameters().initialize(3);
      std::vector<double> losses[2];
      size_t memory[2];
      for (const bool recording : {false, true}) {
        Arena arena(host_memory(), 1 << 12);
        Tape tape(cpu_kernels(), arena, dtype, {.recording = recording});
        losses[recording] = to_doubles(model.losses(tape, {2, kTokens, source, target}));
        memory[recording] = arena.peak();
      }
      EXPECT_TRUE(close(losses[0], losses[1], dtype == DType::f32 ? kLossTolerance : kBfloat16LossTolerance));
      EXPECT_GT(losses[0][1], 0.0);
      EXPECT_LT(memory[0], memory[1] / 3);
      // States, queries, keys and values of all rows, and those of a part with its norms. What else there is, losses,
      // softmax denominators and indices, is less than the states.
      if (dtype == DType::f32) {
        EXPECT_LT(memory[0], (5 * kRows + 4 * kPart) * kWidth * sizeof(float));
      }
    }
}

TEST(TransformerLmGolden, AdaptiveInputAndSoftmax) {
  QN_GOLDEN(path, "transformer_lm_adaptive.h5");
  check_all_cases(path);
}

TEST(TransformerLmGolden, PlainSoftmax) {
  QN_GOLDEN(path, "transformer_lm_tied.h5");
  check_all_cases(path);
}

TEST(TransformerLmGolden, SecondWordOfTailBandCounts) {
  QN_GOLDEN(path, "transformer_lm_adaptive.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto model = load_golden_model(file, "model", DType::f32);
  auto pass = make_pass(file, "quirk", DType::f32, false);
  run_loss(*model, *pass);
  EXPECT_TRUE(close(pass->loss, file.read<double>("quirk/loss_correct")[0], kLossTolerance));
  EXPECT_FALSE(close(pass->loss, file.read<double>("quirk/loss_fairseq")[0], kLossTolerance));
}

TEST(TransformerLmGolden, SinusoidsAreTheReferences) {
  QN_GOLDEN(path, "transformer_lm_adaptive.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  auto table = file.read<double>("model/sinusoidal_table");
  const int64_t first = kPadId + 1, width = file.shape("model/sinusoidal_table")[1];
  const int64_t count = file.shape("model/sinusoidal_table")[0] - first;
  Module module;
  Positions positions(module.root(), width, count, false);
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  const std::vector<int32_t> tokens(static_cast<size_t>(count), kEosId);
  const Tensor zero = tape.tensor({count, width});
  cpu_kernels().fill(zero, 0.0);
  const Var rows = positions.forward(tape, {zero, nullptr}, tokens, count);
  table.erase(table.begin(), table.begin() + first * width);
  EXPECT_TRUE(close(to_doubles(rows.value), table, kForwardTolerance));
}

}  // namespace
}  // namespace qn::test
