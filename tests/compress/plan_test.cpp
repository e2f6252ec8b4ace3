#include "compress/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "compress/fairseq_config.h"
#include "core/hdf5_file.h"
#include "support/capture.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The file that fairseq ships, doubled backslashes included.
constexpr const char* kShipped = R"(# example
n_centroids:
    Linear:
        key: in_features
        value: {"*": 256}
    Embedding:
        key: embedding_dim
        value: {"*": 256}

block_sizes:
    Linear:
        key: fuzzy_name
        value: {fc: 8, attn: 4, emb: 4}
    Embedding:
        key: fuzzy_name
        value: {emb: 8}

layers_to_quantize:
    - decoder\\.layers\\.\d+\\.fc[12]
    - decoder\\.embed_tokens\\.embeddings\\.[012]\\.[01]
    - decoder\\.layers\\.\d+\\.self_attn\\.(k_proj|v_proj|q_proj|out_proj)
)";

/// The weights of an adaptive transformer language model with `layers` layers of width 1024.
std::vector<WeightInfo> adaptive_model(int layers) {
  std::vector<WeightInfo> weights;
  const std::vector<std::pair<int64_t, int64_t>> bands = {{20000, 1024}, {40000, 256}, {207744, 64}};
  for (size_t i = 0; i < bands.size(); ++i) {
    const std::string band = fmt::format("decoder.embed_tokens.embeddings.{}.", i);
    weights.push_back(
        {.name = band + "0.weight", .kind = WeightKind::embedding, .rows = bands[i].first, .cols = bands[i].second});
    weights.push_back({.name = band + "1.weight", .rows = 1024, .cols = bands[i].second});
  }
  for (int i = 0; i < layers; ++i) {
    const std::string layer = fmt::format("decoder.layers.{}.", i);
    for (const char* name : {"k_proj", "v_proj", "q_proj", "out_proj"})
      weights.push_back({.name = layer + "self_attn." + name + ".weight", .rows = 1024, .cols = 1024});
    weights.push_back({.name = layer + "fc1.weight", .rows = 4096, .cols = 1024});
    weights.push_back({.name = layer + "fc2.weight", .rows = 1024, .cols = 4096});
  }
  return weights;
}

KMeansShape pq_of(const WeightPlan& weight) { return weight.quantizer->kmeans().value(); }

template <typename W>
std::vector<std::string> names(const std::vector<W>& weights) {
  std::vector<std::string> result;
  for (const W& w : weights) result.push_back(w.name);
  return result;
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + separator.size())
    parts.push_back(text.substr(begin, end - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

TEST(Plan, ShippedFairseqFileIsRepairedAndMeansWhatItSays) {
  const LogCapture log;
  const QuantizationPlan plan = make_plan(parse_quantize_rules(kShipped, "example.yaml"), adaptive_model(2));
  ASSERT_EQ(plan.stages, 3);
  EXPECT_THAT(names(plan.stage(0)), testing::ElementsAre("decoder.layers.0.fc1.weight", "decoder.layers.0.fc2.weight",
                                                         "decoder.layers.1.fc1.weight", "decoder.layers.1.fc2.weight"));
  EXPECT_EQ(plan.stage(1).size(), 6u);
  EXPECT_EQ(plan.stage(2).size(), 8u);
  EXPECT_THAT(log.text(), AllOf(HasSubstr("example.yaml:19"), HasSubstr("backslashes are doubled"),
                                HasSubstr(R"(using 'decoder\.layers\.\d+\.fc[12]')"), HasSubstr("warning")));
}

TEST(Plan, CorrectFileGivesTheSamePlanWithoutWarning) {
  std::string text = kShipped;
  for (size_t at; (at = text.find("\\\\")) != std::string::npos;) text.erase(at, 1);
  const QuantizationPlan repaired = make_plan(parse_quantize_rules(kShipped, ""), adaptive_model(3));
  const LogCapture log;
  const QuantizationPlan plan = make_plan(parse_quantize_rules(text, ""), adaptive_model(3));
  EXPECT_EQ(names(plan.quantized()), names(repaired.quantized()));
  EXPECT_THAT(log.text(), testing::Not(HasSubstr("doubled")));
}

/// What a text such as "Linear by part of the name (first match wins): fc=8, attn=4; Embedding by embedding_dim: *=256"
/// says.
std::map<std::string, SizeRule> parse_size_rules(const std::string& text) {
  std::map<std::string, SizeRule> rules;
  for (const std::string& part : split(text, "; ")) {
    const std::vector<std::string> sides = split(part, ": "), subject = split(sides.at(0), " by ");
    SizeRule& rule = rules[subject.at(0)];
    rule.key = subject.at(1).starts_with("part of the name") ? "fuzzy_name" : subject.at(1);
    for (const std::string& entry : split(sides.at(1), ", ")) {
      const size_t at = entry.find('=');
      rule.values.emplace_back(entry.substr(0, at), std::stoll(entry.substr(at + 1)));
    }
  }
  return rules;
}

struct RecordedWeight {
  std::string name;
  int64_t rows, cols, block_size, n_centroids;
};

struct RecordedStage {
  std::string pattern;
  std::vector<RecordedWeight> weights;
};

std::vector<RecordedStage> recorded_stages(const Hdf5File& file) {
  std::vector<RecordedStage> stages;
  for (int64_t s = 0; s < file.int_attribute("size_tracker", "n_stages"); ++s) {
    const std::string group = fmt::format("size_tracker/stage{}", s);
    RecordedStage& stage = stages.emplace_back();
    stage.pattern = file.string_attribute(group, "regex");
    const std::vector<int64_t> numbers = file.read<int64_t>(group + "/rows_cols_block_K");
    size_t at = 0;
    for (const std::string& layer : file.read_strings(group + "/layers")) {
      stage.weights.push_back(
          {layer + ".weight", numbers.at(at), numbers.at(at + 1), numbers.at(at + 2), numbers.at(at + 3)});
      at += 4;
    }
  }
  return stages;
}

/// The weights of all stages, mixed as in a model, and one that belongs to none.
std::vector<WeightInfo> weights_of(const std::vector<RecordedStage>& stages) {
  const std::regex table(R"(.*embed_tokens(\.embeddings\.\d+\.0)?\.weight)");
  std::vector<WeightInfo> weights = {
      {.name = "decoder.adaptive_softmax.head.class_proj.weight", .rows = 2, .cols = 64}};
  bool more = true;
  for (size_t i = 0; more; ++i) {
    more = false;
    for (const RecordedStage& stage : stages) {
      if (i >= stage.weights.size()) continue;
      const RecordedWeight& w = stage.weights[i];
      const WeightKind kind = std::regex_match(w.name, table) ? WeightKind::embedding : WeightKind::linear;
      weights.push_back({.name = w.name, .kind = kind, .rows = w.rows, .cols = w.cols});
      more = true;
    }
  }
  return weights;
}

TEST(Plan, FairseqsPlanOfRecord) {
  QN_GOLDEN(path, "pq.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<RecordedStage> stages = recorded_stages(file);
  ASSERT_FALSE(stages.empty());
  QuantizeRules rules;
  rules.n_centroids = parse_size_rules(file.string_attribute("size_tracker", "n_centroids"));
  rules.block_sizes = parse_size_rules(file.string_attribute("size_tracker", "block_sizes"));
  for (const RecordedStage& stage : stages) rules.stages.push_back({stage.pattern, ""});
  const QuantizationPlan plan = make_plan(rules, weights_of(stages));
  ASSERT_EQ(plan.stages, std::ssize(stages));
  for (size_t s = 0; s < stages.size(); ++s) {
    const std::vector<WeightPlan> planned = plan.stage(static_cast<int64_t>(s));
    ASSERT_EQ(names(planned), names(stages[s].weights));
    for (size_t i = 0; i < planned.size(); ++i) {
      const RecordedWeight& expected = stages[s].weights[i];
      EXPECT_EQ(pq_of(planned[i]).block_size, expected.block_size) << expected.name;
      EXPECT_EQ(pq_of(planned[i]).n_centroids, expected.n_centroids) << expected.name;
    }
  }
}

TEST(Plan, DefaultsAreFairseqs) {
  const QuantizationPlan plan = make_plan(parse_quantize_rules("", "empty.yaml"), adaptive_model(2));
  ASSERT_EQ(plan.stages, 3);
  EXPECT_EQ(names(plan.quantized()),
            names(make_plan(parse_quantize_rules(kShipped, ""), adaptive_model(2)).quantized()));
  for (const WeightPlan& w : plan.quantized()) {
    // Feed-forward weights and token tables: 8; attention and the projections of tables: 4.
    const bool eight = w.name.find(".fc") != std::string::npos || w.name.ends_with(".0.weight");
    EXPECT_EQ(pq_of(w).block_size, eight ? 8 : 4) << w.name;
    EXPECT_EQ(pq_of(w).n_centroids, 256) << w.name;
  }
}

TEST(Plan, DefaultsFitPlainEmbeddingsAndRoberta) {
  for (const std::string root : {"decoder.", "encoder.sentence_encoder."}) {
    const std::vector<WeightInfo> weights = {
        {.name = root + "embed_tokens.weight", .kind = WeightKind::embedding, .rows = 1000, .cols = 64},
        {.name = root + "embed_positions.weight", .kind = WeightKind::embedding, .rows = 66, .cols = 64},
        {.name = root + "layers.0.fc1.weight", .rows = 64, .cols = 64},
        {.name = root + "layers.0.self_attn.q_proj.weight", .rows = 64, .cols = 64}};
    const QuantizationPlan plan = make_plan(default_quantize_rules(), weights);
    EXPECT_EQ(plan.find(root + "embed_positions.weight")->stage, -1);
    EXPECT_EQ(names(plan.stage(1)), std::vector<std::string>{root + "embed_tokens.weight"});
    EXPECT_EQ(pq_of(plan.stage(1)[0]).block_size, 8);
    EXPECT_EQ(pq_of(plan.stage(2)[0]).block_size, 4);
  }
}

QuantizeRules one_stage(const std::string& pattern) {
  QuantizeRules rules = default_quantize_rules();
  rules.stages = {{pattern, "rules.yaml:3"}};
  return rules;
}

TEST(Plan, PatternsMatchAtTheStartOnly) {
  const std::vector<WeightInfo> weights = {{.name = "module.decoder.fc1.weight", .rows = 64, .cols = 64},
                                           {.name = "decoder.fc1_extra", .rows = 64, .cols = 64},
                                           {.name = "encoder.decoder.fc1", .rows = 64, .cols = 64}};
  EXPECT_THAT(names(make_plan(one_stage(R"(decoder\.fc1)"), weights).quantized()),
              testing::ElementsAre("module.decoder.fc1.weight", "decoder.fc1_extra"));
  EXPECT_THAT(names(make_plan(one_stage(R"(decoder\.fc1$)"), weights).quantized()),
              testing::ElementsAre("module.decoder.fc1.weight"));
}

TEST(Plan, AnyNameOfATiedWeightSelectsIt) {
  const std::vector<WeightInfo> weights = {{.name = "decoder.embed_tokens.weight",
                                            .kind = WeightKind::embedding,
                                            .rows = 1000,
                                            .cols = 64,
                                            .aliases = {"decoder.output_projection.weight"}}};
  EXPECT_EQ(names(make_plan(one_stage(R"(decoder\.output_projection)"), weights).quantized()),
            std::vector<std::string>{"decoder.embed_tokens.weight"});
}

TEST(Plan, PatternWithoutMatchNamesTheNearestWeights) {
  const auto weights = adaptive_model(1);
  const std::string message = error_of([&] { make_plan(one_stage(R"(decoder\.layer\.0\.fc1)"), weights); });
  EXPECT_THAT(message, AllOf(HasSubstr("rules.yaml:3"), HasSubstr(R"(decoder\.layer\.0\.fc1)"),
                             HasSubstr("decoder.layers.0.fc1")));
  EXPECT_THAT(error_of([&] { make_plan(one_stage("decoder\\\\.nothing"), weights); }), HasSubstr("matches no weight"));
}

TEST(Plan, MalformedPatternIsShown) {
  EXPECT_THAT(error_of([] { make_plan(one_stage("decoder[12"), adaptive_model(1)); }),
              AllOf(HasSubstr("rules.yaml:3"), HasSubstr("decoder[12"), HasSubstr("not a regular expression of Python"),
                    HasSubstr("character 8")));
}

TEST(Plan, FirstStageWins) {
  QuantizeRules rules = default_quantize_rules();
  rules.stages = {{"decoder.*fc1", "a"}, {"decoder.*fc[12]", "b"}};
  const LogCapture log;
  const QuantizationPlan plan = make_plan(rules, adaptive_model(1));
  EXPECT_EQ(names(plan.stage(0)), std::vector<std::string>{"decoder.layers.0.fc1.weight"});
  EXPECT_EQ(names(plan.stage(1)), std::vector<std::string>{"decoder.layers.0.fc2.weight"});
  EXPECT_THAT(log.text(), HasSubstr("stays in stage 1"));
  rules.stages = {{"decoder.*fc[12]", "a"}, {"decoder.*fc1", "b"}};
  EXPECT_THAT(error_of([&] { make_plan(rules, adaptive_model(1)); }),
              AllOf(HasSubstr("b: "), HasSubstr("earlier stage")));
  rules.stages.clear();
  EXPECT_THAT(error_of([&] { make_plan(rules, adaptive_model(1)); }), HasSubstr("no stage"));
}

TEST(Plan, SizesComeFromNamesAndAttributes) {
  QuantizeRules rules = one_stage("net");
  rules.n_centroids["Linear"] = {"in_features", {{"64", 16}, {"*", 32}}};
  rules.block_sizes["Linear"] = {"fuzzy_name", {{"proj", 2}, {"k_proj", 8}, {"*", 1}}};
  rules.n_centroids["Conv2d"] = {"out_channels", {{"*", 12}}};
  rules.block_sizes["Conv2d"] = {"kernel_size", {{"(3, 3)", 9}, {"(1, 1)", 4}}};
  const std::vector<WeightInfo> weights = {
      {.name = "net.k_proj", .rows = 64, .cols = 64},
      {.name = "net.other", .rows = 64, .cols = 128},
      {.name = "net.conv", .kind = WeightKind::conv, .rows = 32, .cols = 72, .attributes = {{"kernel_size", "(3, 3)"}}},
      {.name = "net.point",
       .kind = WeightKind::conv,
       .rows = 32,
       .cols = 64,
       .attributes = {{"kernel_size", "(1, 1)"}}}};
  const auto planned = make_plan(rules, weights).quantized();
  EXPECT_EQ(std::pair(pq_of(planned[0]).block_size, pq_of(planned[0]).n_centroids), std::pair(int64_t{2}, int64_t{16}));
  EXPECT_EQ(std::pair(pq_of(planned[1]).block_size, pq_of(planned[1]).n_centroids), std::pair(int64_t{1}, int64_t{32}));
  EXPECT_EQ(std::pair(pq_of(planned[2]).block_size, pq_of(planned[2]).n_centroids), std::pair(int64_t{9}, int64_t{12}));
  EXPECT_EQ(pq_of(planned[3]).block_size, 4);

  rules.block_sizes["Conv2d"].key = "dilation";
  EXPECT_THAT(error_of([&] { make_plan(rules, weights); }),
              AllOf(HasSubstr("net.conv"), HasSubstr("dilation"), HasSubstr("kernel_size, out_channels")));
  for (const char* tensor : {"weight", "bias"}) {
    rules.block_sizes["Linear"] = {tensor, {{"*", 4}}};
    EXPECT_THAT(error_of([&] { make_plan(rules, weights); }), AllOf(HasSubstr("net.k_proj"), HasSubstr("is a tensor")));
  }
  rules.block_sizes["Linear"] = {"out_features", {{"64", 4}}};
  rules.block_sizes["Conv2d"] = {"kernel_size", {{"(1, 1)", 4}}};
  EXPECT_THAT(error_of([&] { make_plan(rules, weights); }), AllOf(HasSubstr("net.conv"), HasSubstr("(3, 3)")));
  rules.block_sizes.erase("Conv2d");
  EXPECT_THAT(error_of([&] { make_plan(rules, weights); }), AllOf(HasSubstr("block_sizes"), HasSubstr("Conv2d")));
}

TEST(Plan, BlockSizeMustDivideTheColumns) {
  const std::vector<WeightInfo> weights = {{.name = "decoder.fc1", .rows = 100, .cols = 100}};
  EXPECT_THAT(error_of([&] { make_plan(one_stage("decoder"), weights); }),
              AllOf(HasSubstr("decoder.fc1"), HasSubstr("100 columns"), HasSubstr("1, 2, 4, 5, 10, 20, 25")));
}

TEST(Plan, CentroidsAreBoundedAndCapped) {
  QuantizeRules rules = one_stage("decoder");
  const std::vector<WeightInfo> weights = {{.name = "decoder.fc1", .rows = 10, .cols = 32}};
  const LogCapture log;
  EXPECT_EQ(pq_of(make_plan(rules, weights).stage(0)[0]).n_centroids, 10);
  EXPECT_THAT(log.text(), AllOf(HasSubstr("decoder.fc1"), HasSubstr("10 centroids instead of 256")));
  for (const int64_t k : {1, 65537}) {
    rules.n_centroids["Linear"] = {"in_features", {{"*", k}}};
    EXPECT_THAT(error_of([&] { make_plan(rules, weights); }), AllOf(HasSubstr("decoder.fc1"), HasSubstr("65536")));
  }
}

TEST(Plan, DescriptionListsEveryWeight) {
  const QuantizationPlan plan = make_plan(default_quantize_rules(), adaptive_model(1));
  const std::string text = describe(plan);
  for (const WeightPlan& w : plan.quantized()) EXPECT_THAT(text, HasSubstr(w.name));
  EXPECT_THAT(text, HasSubstr("528,384"));  // fc1: 512 KiB of codes, 4 KiB of centroids
}

TEST(QuantizationPlan, ByHandOneWeightAtATime) {
  QuantizationPlan plan = dense_plan(adaptive_model(1));
  const std::string fc1 = "decoder.layers.0.fc1.weight";
  const auto pq = make_quantizer("pq", {{"block_size", "8"}, {"n_centroids", "256"}});
  plan.quantize(fc1, 0, pq);
  plan.quantize("decoder.layers.0.fc2.weight", 1, make_quantizer("int", {{"bits", "8"}, {"range", "channel"}}));
  EXPECT_EQ(plan.stages, 2);
  EXPECT_EQ(plan.find(fc1)->quantizer, pq);
  EXPECT_EQ(plan.quantized().size(), 2U);
  EXPECT_EQ(plan.stage(1).front().name, "decoder.layers.0.fc2.weight");
  const auto refuses = [&](const std::string& name, int64_t stage, int64_t block, const std::string& text) {
    const auto quantizer = make_quantizer("pq", {{"block_size", std::to_string(block)}, {"n_centroids", "256"}});
    EXPECT_THAT([&] { plan.quantize(name, stage, quantizer); }, testing::ThrowsMessage<Error>(HasSubstr(text)));
  };
  refuses("decoder.layers.0.fc3.weight", 0, 8, "the nearest: decoder.layers.0.fc");
  refuses(fc1, 3, 8, "there are 2 stages, so 2 comes next");
  refuses(fc1, 0, 3, fc1);
  EXPECT_EQ(plan.stages, 2);
}

}  // namespace
}  // namespace qn::test
