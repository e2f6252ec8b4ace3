// What the products of Hopper want: operands whose rows begin at multiples of 16 bytes, those of logits even at whole
// cache lines, in every model whose vocabulary is no round number.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "data/joined_sentences.h"
#include "models/language_model.h"
#include "models/sentence_encoder.h"
#include "models/seq2seq.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

constexpr int64_t kVocabulary = 203, kWordsInHead = 70;

std::vector<MatmulArgs> products;

Kernels noting_kernels() {
  Kernels kernels = cuda_kernels();
  kernels.matmul = [](const MatmulArgs& args) {
    products.push_back(args);
    cuda_kernels().matmul(args);
  };
  return kernels;
}

/// A model and the losses of a batch.
struct Head {
  std::string name;
  std::function<std::unique_ptr<Module>()> make;
  std::function<Tensor(Module&, Tape&)> losses;
  std::vector<int64_t> classes;  ///< of its distributions
};

void PrintTo(const Head& head, std::ostream* out) { *out << head.name; }

ModelConfig small(ModelType type) {
  ModelConfig config(type);
  config.layers = 1;
  config.embed_dim = 64;
  config.ffn_dim = 96;
  config.heads = 2;
  config.max_positions = 16;
  return config;
}

JoinedSentences sentences() {
  JoinedSentences all;
  all.add(std::vector<int32_t>{0, 7, 202, 2, 9, 150, 2});
  all.add(std::vector<int32_t>{0, 11, 12, 2});
  return all;
}
const JoinedSentences kText = sentences();
const std::vector<int32_t> kMasked{1, 4, 5, 8}, kWords{202, 9, 71, 0};

Sequences view(const JoinedSentences& of) { return {of.begins, of.lengths, of.longest}; }

Head masked_lm(const std::string& name, ModelType type, bool untied) {
  ModelConfig config = small(type);
  config.untie_output = untied;
  return {name,
          [=] { return make_sentence_encoder(config, kVocabulary, 16, {.masked_lm = true}); },
          [](Module& model, Tape& tape) {
            return dynamic_cast<SentenceEncoder&>(model).masked_losses(tape, {kText.tokens, view(kText), kText.types},
                                                                       kMasked, kWords);
          },
          {kVocabulary}};
}

Head language_model(const std::string& name, const std::vector<int64_t>& cutoffs) {
  ModelConfig config = small(ModelType::transformer_lm);
  config.adaptive.cutoffs = cutoffs;
  config.adaptive.softmax = !cutoffs.empty();
  config.adaptive.factor = 1.0;
  config.share_input_output = cutoffs.empty();
  std::vector<int64_t> classes{kVocabulary};
  if (!cutoffs.empty()) classes = {cutoffs[0] + 1, kVocabulary - cutoffs[0]};
  return {name, [=] { return make_language_model(config, kVocabulary, 16); },
          [](Module& model, Tape& tape) {
            return dynamic_cast<LanguageModel&>(model).losses(
                tape, {1, std::ssize(kText.tokens), kText.tokens, kText.tokens});
          },
          classes};
}

Head translation() {
  return {"translation",
          [] { return make_seq2seq(small(ModelType::transformer), kVocabulary, kVocabulary); },
          [](Module& model, Tape& tape) {
            const PairBatch batch{kText.tokens, view(kText), kText.tokens, kText.tokens, view(kText)};
            return dynamic_cast<Seq2Seq&>(model).losses(tape, batch, 0.1);
          },
          {kVocabulary}};
}

struct Pass {
  double loss = 0.0;
  std::vector<float> gradients;
};

Pass pass_of(const Head& head, const Kernels& kernels, DType dtype) {
  const std::unique_ptr<Module> model = head.make();
  model->allocate(DType::f32, kernels);
  model->parameters().initialize(3);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {.recording = true});
  model->parameters().begin_gradients();
  const Tensor losses = head.losses(*model, tape);
  tape.backward();
  model->parameters().finish_gradients();
  const HostView values(kernels, losses), gradients(kernels, model->parameters().grads());
  const std::span<const double> all = values.span<double>();
  const std::span<const float> of_parameters = gradients.span<float>();
  return {std::accumulate(all.begin(), all.end(), 0.0), {of_parameters.begin(), of_parameters.end()}};
}

class AlignedProducts : public testing::TestWithParam<Head> {};

void expect_aligned(const void* place, int64_t ld, DType dtype, const MatmulArgs& product) {
  const auto step = static_cast<uintptr_t>(ld) * size_of(dtype);
  EXPECT_EQ((reinterpret_cast<uintptr_t>(place) | step) % 16, 0U)
      << "rows of " << ld << " elements in a product of " << product.m << " x " << product.n << " x " << product.k;
}

TEST_P(AlignedProducts, OfEveryWidth) {
  products.clear();
  pass_of(GetParam(), noting_kernels(), DType::bf16);
  for (const MatmulArgs& product : products) {
    expect_aligned(product.a, product.lda, product.dtype, product);
    expect_aligned(product.b, product.ldb, product.dtype, product);
    expect_aligned(product.c, product.ldc, product.dtype_c, product);
  }
}

/// Forward the logits are the result, backward the first operand of both gradients.
TEST_P(AlignedProducts, OfLogitsInWholeCacheLines) {
  products.clear();
  pass_of(GetParam(), noting_kernels(), DType::bf16);
  for (const int64_t classes : GetParam().classes) {
    const int64_t columns = (classes + 63) / 64 * 64;
    const auto count = [&](auto f) { return std::count_if(products.begin(), products.end(), f); };
    EXPECT_EQ(count([&](const MatmulArgs& p) { return p.n == classes && p.ldc == columns; }), 1) << classes;
    EXPECT_EQ(count([&](const MatmulArgs& p) { return p.k == classes && p.lda == columns; }), 1) << classes;
    EXPECT_EQ(count([&](const MatmulArgs& p) { return p.m == classes && p.transpose_a && p.lda == columns; }), 1)
        << classes;
  }
}

TEST_P(AlignedProducts, GiveTheLossesAndGradientsOfTheCpu) {
  const Pass cpu = pass_of(GetParam(), cpu_kernels(), DType::f32),
             cuda = pass_of(GetParam(), cuda_kernels(), DType::f32);
  EXPECT_TRUE(close(cuda.loss, cpu.loss, kSummationTolerance));
  EXPECT_TRUE(close(cuda.gradients, cpu.gradients, kSummationTolerance));
}

INSTANTIATE_TEST_SUITE_P(Heads, AlignedProducts,
                         testing::Values(masked_lm("roberta_tied", ModelType::roberta, false),
                                         masked_lm("roberta", ModelType::roberta, true),
                                         masked_lm("bert", ModelType::bert, false), language_model("tied_lm", {}),
                                         language_model("adaptive_lm", {kWordsInHead}), translation()),
                         [](const testing::TestParamInfo<Head>& entry) { return entry.param.name; });

}  // namespace
}  // namespace qn::test
