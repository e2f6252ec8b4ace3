// RoBERTa against fairseq: states, logits, losses and gradients, in float, double and bf16; which parameters there are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "golden_roberta.h"
#include "models/layer_selection.h"
#include "models/sentence_encoder.h"
#include "support/golden.h"

namespace qn::test {
namespace {

constexpr PassOptions kEvaluation{}, kRecording{.recording = true};

/// A case of a file: its model, its tokens, and what is asked of the model.
struct Case {
  std::string model, group;
  double (*run)(const Hdf5File&, const std::string& group, SentenceEncoder&, RobertaPass&);
  Var (*logits)(SentenceEncoder&, RobertaPass&);
  std::string stored_logits, targets;
};

Var masked_logits(SentenceEncoder& model, RobertaPass& pass) {
  return model.masked_logits(*pass.tape, pass.batch, pass.masked_rows);
}
Var sentence_logits(SentenceEncoder& model, RobertaPass& pass) { return model.sentence_logits(*pass.tape, pass.batch); }

double masked_lm(const Hdf5File&, const std::string&, SentenceEncoder& model, RobertaPass& pass) {
  return run_masked_lm(model, pass);
}
double classification(const Hdf5File& file, const std::string& group, SentenceEncoder& model, RobertaPass& pass) {
  return run_classification(model, pass, file.read<int32_t>(group + "/labels"));
}
double regression(const Hdf5File& file, const std::string& group, SentenceEncoder& model, RobertaPass& pass) {
  return run_regression(model, pass, file.read<float>(group + "/targets"));
}

Case masked_lm_case(const std::string& model, const std::string& group) {
  return {model, group, masked_lm, masked_logits, group + "/logits_masked", group + "/targets"};
}
Case sentence_case(const Hdf5File& file, const std::string& model, const std::string& group) {
  return {
      model, group, file.exists(group + "/labels") ? classification : regression, sentence_logits, group + "/logits",
      ""};
}

/// Every case of a file: groups with tokens, their model beside them or in the root.
std::vector<Case> cases_of(const Hdf5File& file) {
  std::vector<Case> cases;
  for (const std::string& group : file.members("")) {
    if (!file.exists(group + "/tokens")) continue;
    const std::string model = file.exists(group + "/model") ? group + "/model" : "model";
    cases.push_back(file.exists(group + "/logits_masked") ? masked_lm_case(model, group)
                                                          : sentence_case(file, model, group));
  }
  return cases;
}

std::unique_ptr<RobertaPass> pass_of(const Hdf5File& file, const Case& c, DType dtype, const PassOptions& options) {
  return make_roberta_pass(file, c.group + "/tokens", c.targets, dtype, options);
}

void check_states(const Hdf5File& file, const Case& c) {
  const auto model = load_golden_roberta(file, c.model, DType::f32);
  const auto pass = pass_of(file, c, DType::f32, kEvaluation);
  std::vector<Tensor> states;
  const Tensor features = model->features(*pass->tape, pass->batch, &states).value;
  if (file.exists(c.group + "/features")) {
    EXPECT_TRUE(close(to_doubles(features), pass->kept(file.read<double>(c.group + "/features")), kForwardTolerance));
  }
  if (file.exists(c.group + "/features_first")) {
    const Var first = select_rows(*pass->tape, {features, nullptr}, pass->begins);
    EXPECT_TRUE(close(to_doubles(first.value), file.read<double>(c.group + "/features_first"), kForwardTolerance));
  }
  if (!file.exists(c.group + "/inner_states")) return;
  const auto stored = file.read<double>(c.group + "/inner_states");
  const size_t size = stored.size() / states.size();
  for (size_t i = 0; i < states.size(); ++i) {
    const std::vector<double> expected(stored.begin() + static_cast<int64_t>(i * size),
                                       stored.begin() + static_cast<int64_t>((i + 1) * size));
    EXPECT_TRUE(close(to_doubles(states[i]), pass->kept(expected), kForwardTolerance)) << "state " << i;
  }
}

void check_bf16(const Hdf5File& file, const Case& c) {
  const auto model = load_golden_roberta(file, c.model, DType::f32);
  const Bfloat16Model tolerance{golden_roberta_config(file, c.model).layers, false};
  const auto forward = pass_of(file, c, DType::bf16, kEvaluation);
  EXPECT_TRUE(close_in_norm(to_doubles(c.logits(*model, *forward).value), file.read<double>(c.stored_logits),
                            tolerance.forward()));
}

void check_case(const Hdf5File& file, const Case& c) {
  SCOPED_TRACE(c.group);
  check_states(file, c);
  check_bf16(file, c);
  const auto model = load_golden_roberta(file, c.model, DType::f32);
  const auto forward = pass_of(file, c, DType::f32, kEvaluation);
  EXPECT_TRUE(
      close(to_doubles(c.logits(*model, *forward).value), file.read<double>(c.stored_logits), kForwardTolerance));
  const auto pass = pass_of(file, c, DType::f32, kRecording);
  EXPECT_TRUE(close(c.run(file, c.group, *model, *pass), file.read<double>(c.group + "/loss")[0], kLossTolerance));
  expect_gradients(file, c.group + "/grads", *model, kGradientTolerance);
  if (!file.exists(c.group + "/grads_f64")) return;
  const auto exact = load_golden_roberta(file, c.model, DType::f64);
  const auto exact_pass = pass_of(file, c, DType::f64, kRecording);
  const double loss = c.run(file, c.group, *exact, *exact_pass);
  EXPECT_TRUE(close(loss, file.read<double>(c.group + "/loss_f64")[0], kDoubleTolerance));
  expect_gradients(file, c.group + "/grads_f64", *exact, kDoubleTolerance);
}

void check_file(const char* name, size_t at_least) {
  QN_GOLDEN(path, name);
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<Case> cases = cases_of(file);
  EXPECT_GE(cases.size(), at_least);
  for (const Case& c : cases) check_case(file, c);
}

TEST(RobertaGolden, MaskedLmAndClassification) { check_file("roberta.h5", 3); }

TEST(RobertaGolden, RegressionAndPrenorm) { check_file("roberta_train.h5", 4); }

TEST(RobertaGolden, LayerDropInTraining) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int passes = 0;
  for (const std::string& name : file.members("layerdrop")) {
    if (!file.exists("layerdrop/" + name + "/tokens")) continue;
    const Case c = masked_lm_case("layerdrop/model", "layerdrop/" + name);
    SCOPED_TRACE(c.group);
    const bool training = file.exists(c.group + "/uniform");
    const auto model = load_golden_roberta(file, c.model, DType::f32);
    if (training) model->layer_drop().set_uniforms(file.read<double>(c.group + "/uniform"));
    const auto forward = pass_of(file, c, DType::f32, {.training = training});
    EXPECT_TRUE(
        close(to_doubles(c.logits(*model, *forward).value), file.read<double>(c.stored_logits), kForwardTolerance));
    const auto pass = pass_of(file, c, DType::f32, {.training = training, .recording = true});
    EXPECT_TRUE(close(run_masked_lm(*model, *pass), file.read<double>(c.group + "/loss")[0], kLossTolerance));
    if (training) expect_gradients(file, c.group + "/grads", *model, kGradientTolerance);
    ++passes;
  }
  EXPECT_GT(passes, 1);
}

TEST(RobertaGolden, PrunedModelComputesWhatFairseqsDoes) {
  QN_GOLDEN(path, "layerdrop.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::string group = "roberta";
  const auto expect_features = [&](SentenceEncoder& model, const std::string& dataset) {
    const auto pass = make_roberta_pass(file, group + "/tokens", "", DType::f32, kEvaluation);
    EXPECT_TRUE(close(to_doubles(model.features(*pass->tape, pass->batch).value),
                      pass->kept(file.read<double>(dataset)), kForwardTolerance));
  };
  const auto whole = load_golden_roberta(file, group + "/model", DType::f32);
  expect_features(*whole, group + "/eval_features");
  const LayerSelection selection(file.string_attribute(group + "/pruned", "layers_to_keep"),
                                 file.int_attribute(group + "/model", "layers"), 1);
  ModelConfig config = golden_roberta_config(file, group + "/model");
  config.layers = std::ssize(selection.kept());
  const auto pruned =
      make_sentence_encoder(config, file.int_attribute(group + "/model", "vocab"), 0, {.masked_lm = true});
  pruned->allocate(DType::f32, cpu_kernels());
  for (const std::string& name : file.read_strings(group + "/model/param_names"))
    if (const auto renamed = selection.renamed(name))
      pruned->parameters().set_values(*pruned->parameters().find(*renamed),
                                      file.read<float>(group + "/model/params/" + name));
  expect_features(*pruned, group + "/pruned/features");
}

TEST(RobertaGolden, HasTheParametersOfFairseqs) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  ModelConfig base(ModelType::roberta);
  base.layers = 2, base.embed_dim = 24, base.ffn_dim = 40, base.heads = 4, base.max_positions = 22;
  const auto expect = [&](const std::string& name, const std::function<void(ModelConfig&)>& change,
                          int64_t classes = 0) {
    SCOPED_TRACE(name);
    ModelConfig config = base;
    change(config);
    const std::string group = "params_exist/" + name;
    const auto model = make_sentence_encoder(config, 60, 0, {.masked_lm = true, .classes = classes});
    std::vector<int64_t> shapes;
    for (const auto& p : model->parameters().all()) {
      shapes.push_back(p->shape[0]);
      shapes.push_back(p->shape.rank() > 1 ? p->shape[1] : 0);
    }
    EXPECT_EQ(model->parameters().names(), file.read_strings(group + "/param_names"));
    EXPECT_EQ(shapes, file.read<int64_t>(group + "/param_shapes"));
    EXPECT_EQ(model->parameters().elements(), file.int_attribute(group, "n_elements"));
    ASSERT_EQ(std::ssize(model->weights().ties()), file.int_attribute(group, "n_tied"));
    if (!model->weights().ties().empty()) {
      EXPECT_EQ(model->weights().ties()[0].name, file.read_strings(group + "/tied_alias")[0]);
    }
  };
  expect("tied", [](ModelConfig&) {});
  expect("untied", [](ModelConfig& c) { c.untie_output = true; });
  expect("prenorm", [](ModelConfig& c) { c.prenorm = true; });
  expect("layerdrop", [](ModelConfig& c) { c.layerdrop = 0.2; });
  expect("layers_to_keep", [](ModelConfig& c) { c.layers = 1; });
  expect("quant_noise_pq", [](ModelConfig& c) { c.noise_projection = true; });
  expect(
      "classification_head", [](ModelConfig&) {}, 3);
}

/// Parameters of the published models, the masked-LM head included (reference 5.8).
TEST(Roberta, PresetsHaveThePublishedSizes) {
  constexpr int64_t kVocabulary = 50265, kPositions = 512;
  const auto read = [](const std::string& text) { return read_config<ModelConfig>(config_tree_from_text(text, "x")); };
  const auto elements = [&](const std::string& text) {
    return make_sentence_encoder(read(text), kVocabulary, kPositions, {.masked_lm = true})->parameters().elements();
  };
  EXPECT_EQ(elements("type: roberta"), 124'696'665);
  EXPECT_EQ(elements("{type: roberta, noise_projection: true}"), 124'696'665 + 589'824);
  EXPECT_EQ(elements("{type: roberta, untie_output: true}"), 124'696'665 + 38'603'520);
  const ModelConfig large = read("{type: roberta, preset: large, layers: 3}");
  EXPECT_EQ(large.layers, 3);
  EXPECT_EQ(large.embed_dim, 1024);
  EXPECT_EQ(large.heads, 16);
  EXPECT_EQ(dump_config(read(dump_config(large))), dump_config(large));
}

TEST(Roberta, HasNoKeysOfOtherTypes) {
  const auto refuses = [](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { read_config<ModelConfig>(config_tree_from_text(text, "x.yaml")); },
                testing::ThrowsMessage<UsageError>(testing::HasSubstr(message)))
        << text;
  };
  refuses("{type: roberta, adaptive: {input: true}}", "unknown key 'adaptive'");
  refuses("{type: roberta, scale_embedding: true}", "unknown key 'scale_embedding'");
  refuses("{type: transformer_lm, untie_output: true}", "unknown key 'untie_output'");
  refuses("{preset: large}", "unknown key 'preset'");
  refuses("{type: roberta, pooler_dropout: 1}", "'pooler_dropout' must be in [0, 1)");
  refuses("{type: roberta, embed_dim: 10, heads: 4}", "'heads' must divide");
}

/// As BERT: N(0, 0.02), biases zero, and torch's defaults in the classification head (reference 5.8).
TEST(Roberta, StartsAsBert) {
  ModelConfig config(ModelType::roberta);
  config.layers = 1, config.embed_dim = 64, config.ffn_dim = 128, config.heads = 4;
  const auto model = make_sentence_encoder(config, 500, 30, {.masked_lm = true, .classes = 3});
  model->allocate(DType::f32, cpu_kernels());
  model->parameters().initialize(1);
  for (const auto& p : model->parameters().all()) {
    const std::vector<double> values = to_doubles(p->value);
    double squares = 0.0, largest = 0.0;
    for (const double v : values) {
      squares += v * v;
      largest = std::max(largest, std::abs(v));
    }
    const double deviation = std::sqrt(squares / static_cast<double>(values.size()));
    if (p->name.starts_with("classification_heads")) {
      EXPECT_LE(largest, 1.0 / 8.0) << p->name;
    } else if (p->name.ends_with("bias")) {
      EXPECT_EQ(largest, 0.0) << p->name;
    } else if (p->name.find("norm") == std::string::npos) {
      EXPECT_NEAR(deviation, 0.02, 0.001) << p->name;
    }
  }
}

/// What is not asked for is not computed, and changes nothing; whether the last layer runs or is left out.
TEST(Roberta, RowsDoNotDependOnWhatElseIsAsked) {
  const std::vector<int32_t> tokens{0, 7, 8, 2, 0, 9, 2, 0, 5, 6, 7, 2}, begins{0, 4, 7}, lengths{4, 3, 5};
  const SentenceBatch batch{tokens, {begins, lengths, 5}};
  const std::vector<int32_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, some{1, 3, 8, 11, -1};
  for (const bool prenorm : {false, true}) {
    ModelConfig config(ModelType::roberta);
    config.layers = 2, config.embed_dim = 16, config.ffn_dim = 32, config.heads = 2, config.prenorm = prenorm;
    config.dropout = config.attention_dropout = 0.0;
    config.layerdrop = 0.5;
    const auto model = make_sentence_encoder(config, 12, 30, {.masked_lm = true});
    model->allocate(DType::f64, cpu_kernels());
    model->parameters().initialize(1);
    for (uint32_t update = 0; update < 8; ++update) {
      const auto logits = [&](const std::vector<int32_t>& rows) {
        Arena arena;
        Tape tape(cpu_kernels(), arena, DType::f64, {.training = true, .update = update});
        return to_doubles(model->masked_logits(tape, batch, rows).value);
      };
      const std::vector<double> expected = logits(all), found = logits(some);
      ASSERT_EQ(found.size(), some.size() * 12);
      for (size_t i = 0; i + 1 < some.size(); ++i)
        for (size_t word = 0; word < 12; ++word)
          EXPECT_NEAR(found[i * 12 + word], expected[static_cast<size_t>(some[i]) * 12 + word], 1e-12);
    }
  }
}

}  // namespace
}  // namespace qn::test
