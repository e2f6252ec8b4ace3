// BERT: what it has beside RoBERTa. Its results are compared with transformers' in tests/tasks/hf_encoder_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/joined_sentences.h"
#include "models/sentence_encoder.h"
#include "ops/host_access.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocabulary = 20;

ModelConfig tiny_bert() {
  ModelConfig c(ModelType::bert);
  c.layers = 1;
  c.embed_dim = 8;
  c.ffn_dim = 12;
  c.heads = 2;
  c.max_positions = 10;
  return c;
}

/// Two sentences, the first of which is a pair; in double.
class Bert : public testing::Test {
 protected:
  Bert() {
    batch_.add(std::vector<int32_t>{0, 7, 8, 2, 9, 2}, 4);
    batch_.add(std::vector<int32_t>{0, 11, 12, 2});
  }
  std::unique_ptr<SentenceEncoder> make(const ModelConfig& config, const EncoderHeads& heads) {
    auto model = make_sentence_encoder(config, kVocabulary, 0, heads);
    model->allocate(DType::f64, cpu_kernels());
    RandomStream random({.seed = 3, .purpose = Purpose::test});
    uint64_t draw = 0;
    for (const auto& p : model->parameters().all())
      for (int64_t i = 0; i < p->value.elements(); ++i) p->value.as<double>()[i] = random.uniform(draw++) - 0.4;
    return model;
  }
  SentenceBatch view() const { return {batch_.tokens, {batch_.begins, batch_.lengths, batch_.longest}, batch_.types}; }
  JoinedSentences batch_;
  std::vector<int32_t> rows_{1, 4, 7}, words_{8, 9, 11}, classes_{1, 0};
};

using Losses = std::function<Tensor(SentenceEncoder&, Tape&)>;

double total(SentenceEncoder& model, const Losses& losses, bool recording) {
  Arena arena(*cpu_kernels().memory);
  Tape tape(cpu_kernels(), arena, DType::f64, {.recording = recording});
  if (recording) model.parameters().begin_gradients();
  const Tensor found = losses(model, tape);
  double sum = 0.0;
  for (int64_t i = 0; i < found.elements(); ++i) sum += found.as<double>()[i];
  if (recording) tape.backward();
  return sum;
}

/// Differences of the loss against the gradient, for some elements of every parameter.
void expect_gradients(SentenceEncoder& model, const Losses& losses) {
  total(model, losses, true);
  std::map<std::string, std::vector<double>> gradients;
  for (const auto& p : model.parameters().all()) {
    ASSERT_TRUE(p->slot.touched) << p->name;
    const double* g = p->slot.grad.as<double>();
    gradients[p->name].assign(g, g + p->value.elements());
  }
  for (const auto& p : model.parameters().all())
    for (int64_t i = 0; i < p->value.elements(); i += 1 + p->value.elements() / 7) {
      if (p->name.find("embed_tokens") != std::string::npos && i / 8 == kPadId) continue;
      if (p->name.find("embed_positions") != std::string::npos && i / 8 <= kPadId) continue;
      double* value = p->value.as<double>() + i;
      const double was = *value, step = 1e-6;
      *value = was + step;
      const double above = total(model, losses, false);
      *value = was - step;
      const double below = total(model, losses, false);
      *value = was;
      EXPECT_NEAR(gradients[p->name][static_cast<size_t>(i)], (above - below) / (2 * step), 1e-6)
          << p->name << ' ' << i;
    }
}

TEST_F(Bert, GradientsOfTheMaskedLm) {
  const auto model = make(tiny_bert(), {.masked_lm = true});
  expect_gradients(*model,
                   [&](SentenceEncoder& m, Tape& tape) { return m.masked_losses(tape, view(), rows_, words_); });
}

TEST_F(Bert, GradientsOfTheClassifier) {
  const auto model = make(tiny_bert(), {.classes = 2});
  expect_gradients(*model, [&](SentenceEncoder& m, Tape& tape) {
    return cross_entropy(tape, m.sentence_logits(tape, view()), classes_);
  });
}

TEST_F(Bert, GradientsOfVectors) {
  std::vector<float> targets(16, 0.25f);
  for (const Pooling pooling : {Pooling::mean, Pooling::cls}) {
    const auto model = make(tiny_bert(), {});
    expect_gradients(*model, [&](SentenceEncoder& m, Tape& tape) {
      return squared_error(tape, m.sentence_vectors(tape, view(), pooling), targets);
    });
  }
}

TEST_F(Bert, VectorsDependOnTheirOwnSentenceOnly) {
  const auto model = make(tiny_bert(), {});
  const auto vectors = [&](const SentenceBatch& batch) {
    Arena arena(*cpu_kernels().memory);
    Tape tape(cpu_kernels(), arena, DType::f64, {});
    const Tensor found = model->sentence_vectors(tape, batch, Pooling::mean).value;
    return std::vector<double>(found.as<double>(), found.as<double>() + found.elements());
  };
  const std::vector<double> both = vectors(view());
  JoinedSentences second;
  second.add(std::vector<int32_t>{0, 11, 12, 2});
  const std::vector<double> alone = vectors({second.tokens, {second.begins, second.lengths, second.longest}});
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(alone[i], both[8 + i], 1e-14);
}

TEST_F(Bert, TypesAndEpsCount) {
  const auto model = make(tiny_bert(), {.classes = 2});
  const Losses losses = [&](SentenceEncoder& m, Tape& tape) {
    return cross_entropy(tape, m.sentence_logits(tape, view()), classes_);
  };
  const double before = total(*model, losses, false);
  batch_.types.assign(batch_.types.size(), 0);
  EXPECT_GT(std::abs(total(*model, losses, false) - before), 1e-6);
  ModelConfig config = tiny_bert();
  config.norm_eps = 0.1;
  EXPECT_GT(std::abs(total(*make(config, {.classes = 2}), losses, false) - before), 1e-6);
  config = tiny_bert();
  config.token_types = 1;
  batch_.types[4] = 1;
  EXPECT_THAT([&] { total(*make(config, {.classes = 2}), losses, false); },
              testing::ThrowsMessage<Error>(HasSubstr("no type for second sentences")));
}

TEST(BertConfig, HasKeysAndSizesOfItsOwn) {
  const auto parameters = [](const char* text, const EncoderHeads& heads) {
    const auto config = read_config<ModelConfig>(config_tree_from_text(text, "x.yaml"));
    return make_sentence_encoder(config, 30522, 512, heads)->parameters().elements();
  };
  // BertModel of transformers without its pooler (109,482,240 with it), and two rows of positions that stand for none.
  EXPECT_EQ(parameters("type: bert", {}), 109482240 - 768 * 769 + 2 * 768);
  EXPECT_EQ(parameters("{type: bert, preset: large}", {}), 335141888 - 1024 * 1025 + 2 * 1024);
  EXPECT_EQ(parameters("type: bert", {.classes = 2}), 109482240 + 2 * 769 + 2 * 768);
  for (const char* wrong :
       {"{type: bert, prenorm: true}", "{type: roberta, token_types: 2}", "{type: bert, norm_eps: 0}"})
    EXPECT_THROW(read_config<ModelConfig>(config_tree_from_text(wrong, "x.yaml")), UsageError) << wrong;
}

}  // namespace
}  // namespace qn::test
