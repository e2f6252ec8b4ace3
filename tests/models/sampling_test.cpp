// Language models token by token: what they remember changes nothing; what is drawn, and how often.
#include "models/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/special_tokens.h"
#include "models/lm_tokens.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;
using Ids = std::vector<int32_t>;

constexpr int64_t kWords = 50;

std::unique_ptr<TransformerLm> tiny_model(bool adaptive, bool learned) {
  ModelConfig c;
  c.layers = 2;
  c.embed_dim = c.input_dim = c.output_dim = 16;
  c.ffn_dim = 32;
  c.heads = 2;
  c.max_positions = 40;
  c.prenorm = !adaptive;
  c.final_norm = learned;
  c.learned_positions = learned;
  if (adaptive)
    c.adaptive = {.cutoffs = {10, 30},
                  .factor = 2.0,
                  .dropout = 0.0,
                  .input = true,
                  .softmax = true,
                  .tie_weights = true,
                  .tie_projections = true};
  auto model = std::make_unique<TransformerLm>(c, kWords);
  model->allocate(DType::f32, cpu_kernels());
  model->parameters().initialize(7);
  return model;
}

/// log p of every word behind the tokens, by an ordinary pass.
std::vector<float> log_p_behind(TransformerLm& model, const Ids& tokens, DType dtype = DType::f32) {
  Arena arena;
  Tape tape(cpu_kernels(), arena, dtype, {});
  const Var x = model.features(tape, {1, std::ssize(tokens), tokens, {}});
  const Tensor scores = model.head().log_probabilities(tape, x).row_slice(std::ssize(tokens) - 1, 1);
  return {scores.as<float>(), scores.as<float>() + kWords};
}

void expect_rows(TransformerLm& model, const Tensor& scores, const std::vector<Ids>& texts) {
  ASSERT_EQ(scores.rows(), std::ssize(texts));
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<float> due = log_p_behind(model, texts[i]);
    for (size_t w = 0; w < due.size(); ++w)
      ASSERT_NEAR(scores.as<float>()[i * kWords + w], due[w], 1e-5) << i << ' ' << w;
  }
}

TEST(LmTokens, EqualAnOrdinaryPass) {
  for (const bool adaptive : {false, true})
    for (const bool learned : {false, true}) {
      SCOPED_TRACE(fmt::format("adaptive {}, learned positions {}", adaptive, learned));
      const auto model = tiny_model(adaptive, learned);
      Arena arena;
      Tape tape(cpu_kernels(), arena, DType::f32, {});
      LmTokens tokens(*model, tape);
      // Prompts of all lengths and bands, read at once.
      std::vector<Ids> texts{{2}, {2, 45, 4, 11, 31, 7, 7, 29, 30, 49}, {2, 9, 10}};
      const Ids all{2, 2, 45, 4, 11, 31, 7, 7, 29, 30, 49, 2, 9, 10};
      expect_rows(*model, tokens.next(all, Ids{1, 10, 3}, Ids{-1, -1, -1}), texts);
      // One goes on twice, one is over, one begins anew; others have several tokens more.
      texts = {{2, 45, 4, 11, 31, 7, 7, 29, 30, 49, 33}, {2, 45, 4, 11, 31, 7, 7, 29, 30, 49, 5, 6, 48}, {40, 8}};
      expect_rows(*model, tokens.next(Ids{33, 5, 6, 48, 40, 8}, Ids{1, 3, 2}, Ids{1, 1, -1}), texts);
      for (int32_t step = 0; step < 24; ++step) {  // across the growth of what is kept
        const Ids next{4 + step, 28 - step, 20 + step};
        for (size_t i = 0; i < 3; ++i) texts[i].push_back(next[i]);
        expect_rows(*model, tokens.next(next, Ids{1, 1, 1}, Ids{0, 1, 2}), texts);
      }
      std::swap(texts[0], texts[2]);
      texts.resize(2);
      for (size_t i = 0; i < 2; ++i) texts[i].push_back(12);
      expect_rows(*model, tokens.next(Ids{12, 12}, Ids{1, 1}, Ids{2, 1}), texts);
    }
}

/// In bf16 weights compute casts, once in a pass: steps must not write over them.
TEST(LmTokens, KeepWhatWeightsHaveComputed) {
  const auto model = tiny_model(true, true);
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::bf16, {});
  LmTokens tokens(*model, tape);
  Ids text;
  for (int32_t step = 0; step < 6; ++step) {
    text.push_back(4 + 7 * step);
    const Tensor scores = tokens.next(Ids{text.back()}, Ids{1}, Ids{step == 0 ? -1 : 0});
    const std::vector<float> due = log_p_behind(*model, text, DType::bf16);
    for (size_t w = 0; w < due.size(); ++w) ASSERT_NEAR(scores.as<float>()[w], due[w], 0.1) << step << ' ' << w;
  }
}

TEST(LmTokens, AreSearchedAsByHand) {
  // The best two-token continuation of a prompt, by trying all.
  const auto model = tiny_model(false, true);
  const Ids prompt{2, 8, 20};
  double best = -1e9;
  Ids due;
  const std::vector<float> first = log_p_behind(*model, prompt);
  for (int32_t a = 0; a < kWords; ++a) {
    if (a == kPadId || a == kEosId) continue;
    Ids longer = prompt;
    longer.push_back(a);
    const double score = first[static_cast<size_t>(a)] + log_p_behind(*model, longer)[kEosId];
    if (score > best) best = score, due = {a, kEosId};
  }
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  LmTokens tokens(*model, tape);
  PromptedTokens prompted(tokens, {{2}, prompt}, kWords);
  BeamSearchConfig config;
  config.beam = kWords;
  config.length_penalty = 0.0;
  const auto found = beam_search(prompted, std::vector<int64_t>{1, 1}, config);
  EXPECT_EQ(found[1][0].tokens, due);
  EXPECT_NEAR(found[1][0].score, best, 1e-5);
}

/// The definition, word by word.
std::vector<double> naive(const std::vector<float>& log_p, const SamplingConfig& config, bool may_end) {
  std::vector<size_t> order;
  for (size_t w = 0; w < log_p.size(); ++w)
    if (w > 3 || (w == kEosId && may_end) || (w == kUnkId && config.unknown_words)) order.push_back(w);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return log_p[a] > log_p[b]; });
  if (config.temperature == 0.0) order.resize(1);
  if (config.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(config.top_k)));
  const auto weight = [&](size_t w) {
    return std::exp(static_cast<double>(log_p[w]) / (config.temperature == 0.0 ? 1.0 : config.temperature));
  };
  double all = 0.0, kept = 0.0;
  for (const size_t w : order) all += weight(w);
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < config.top_p * all)) kept += weight(order[count++]);
  std::vector<double> p(log_p.size());
  for (size_t i = 0; i < count; ++i) p[order[i]] = weight(order[i]) / kept;
  return p;
}

/// A distribution with ties.
std::vector<float> some_log_p(uint64_t seed, size_t words) {
  const RandomStream random({.seed = seed});
  std::vector<float> log_p;
  double sum = 0.0;
  for (size_t w = 0; w < words; ++w) {
    log_p.push_back(static_cast<float>(std::round(random.normal(w) * 8) / 4));
    sum += std::exp(log_p.back());
  }
  for (float& v : log_p) v -= static_cast<float>(std::log(sum));
  return log_p;
}

Tensor row_of(std::vector<float>& log_p) { return view_of(log_p.data(), {1, std::ssize(log_p)}); }

TEST(Sampling, DrawsFromWhatIsLeft) {
  int cases = 0;
  for (uint64_t seed = 1; seed < 6; ++seed) {
    std::vector<float> log_p = some_log_p(seed, 200);
    for (const double temperature : {0.0, 0.3, 1.0, 2.5})
      for (const int64_t top_k : {0, 1, 7, 150, 1000})
        for (const double top_p : {1e-9, 0.35, 0.9, 0.999, 1.0})
          for (const bool flag : {false, true}) {
            SamplingConfig config{.temperature = temperature, .top_k = top_k, .top_p = top_p};
            config.unknown_words = flag;
            const std::vector<double> due = naive(log_p, config, flag);
            std::vector<double> found(log_p.size());
            int32_t before = -1;
            for (const Choice& choice : choices(row_of(log_p), config, flag)) {
              EXPECT_GT(choice.token, before);
              before = choice.token;
              found[static_cast<size_t>(choice.token)] = choice.probability;
            }
            for (size_t w = 0; w < due.size(); ++w) ASSERT_NEAR(found[w], due[w], 1e-12) << w;
            ++cases;
          }
  }
  EXPECT_EQ(cases, 1000);
}

TEST(Sampling, DrawsAsOftenAsIsDue) {
  std::vector<float> log_p = some_log_p(9, 14);
  const SamplingConfig config{.temperature = 0.8, .top_k = 9, .top_p = 0.98};
  const std::vector<Choice> left = choices(row_of(log_p), config, true);
  ASSERT_GE(left.size(), 5u);
  constexpr int kDraws = 20'000;
  const RandomStream random({.seed = 3, .purpose = Purpose::sampling});
  std::vector<int> counts(log_p.size());
  for (uint64_t i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(draw(left, random.uniform(i)))];
  double chi2 = 0.0;
  for (const Choice& choice : left) {
    const double due = kDraws * choice.probability;
    chi2 += std::pow(counts[static_cast<size_t>(choice.token)] - due, 2) / due;
  }
  EXPECT_LT(chi2, 26.2) << left.size();  // 0.1 % of 8 degrees of freedom
  EXPECT_EQ(draw(left, 0.0), left.front().token);
  EXPECT_EQ(draw(left, std::nextafter(1.0, 0.0)), left.back().token);
}

TEST(Sampling, SaysThatAModelIsOfNoUse) {
  std::vector<float> log_p(10, std::nanf(""));
  EXPECT_THAT([&] { choices(row_of(log_p), {}, true); }, ThrowsMessage<Error>(HasSubstr("not a number")));
  log_p.assign(10, -std::numeric_limits<float>::infinity());
  EXPECT_THAT([&] { choices(row_of(log_p), {}, true); }, ThrowsMessage<Error>(HasSubstr("no word")));
}

}  // namespace
}  // namespace qn::test
