#include "compress/fairseq_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "compress/run_plan.h"
#include "support/capture.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// The layers that fairseq_rules.jsonl asks sizes for.
std::vector<WeightInfo> layers() {
  return {{.name = "decoder.layers.0.fc1.weight", .rows = 4096, .cols = 1024},
          {.name = "decoder.layers.0.self_attn.k_proj.weight", .rows = 8192, .cols = 64},
          {.name = "decoder.embed_tokens.weight",
           .kind = WeightKind::embedding,
           .rows = 8192,
           .cols = 64,
           .attributes = {{"padding_idx", "1"}}},
          {.name = "net.conv.weight",
           .kind = WeightKind::conv,
           .rows = 8192,
           .cols = 576,
           .attributes = {{"kernel_size", "(3, 3)"},
                          {"stride", "(1, 1)"},
                          {"padding", "(1, 1)"},
                          {"groups", "1"},
                          {"padding_mode", "zeros"}}}};
}

/// The sizes that the rules give to a layer: nothing where a section fails.
using Sizes = std::vector<std::optional<int64_t>>;
Sizes sizes_of(const QuantizeRules& rules, const WeightInfo& layer) {
  const std::string type = layer_type(layer.kind);
  const auto size = [&](auto section, auto result, const SizeRule& harmless) -> std::optional<int64_t> {
    QuantizeRules one = rules;
    one.stages = {{"", ""}};
    one.block_sizes = {{type, harmless}};
    one.n_centroids = {{type, harmless}};
    one.*section = rules.*section;
    try {
      return make_plan(one, std::vector{layer}).stage(0)[0].quantizer->kmeans().value().*result;
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  const SizeRule anything{"fuzzy_name", {{"*", 2}}};
  return {size(&QuantizeRules::block_sizes, &KMeansShape::block_size, anything),
          size(&QuantizeRules::n_centroids, &KMeansShape::n_centroids, anything)};
}

std::vector<json> fairseq_rows() {
  std::ifstream file(std::filesystem::path(QN_SOURCE_DIR) / "tests/compress/fairseq_rules.jsonl");
  std::vector<json> rows;
  for (std::string line; std::getline(file, line);)
    if (!line.starts_with('#')) rows.push_back(json::parse(line));
  return rows;
}

TEST(FairseqConfig, MeansWhatItMeansToFairseq) {
  const LogCapture log;
  const std::vector<WeightInfo> all = layers();
  const std::vector<json> rows = fairseq_rows();
  EXPECT_FALSE(rows.empty());
  for (const json& row : rows) {
    SCOPED_TRACE(row.dump());
    const auto text = row["yaml"].get<std::string>();
    const auto read = [&] { return parse_quantize_rules(text, "q.yaml"); };
    const std::string error = error_of(read);
    EXPECT_EQ(!error.empty(), row.contains("error")) << error;
    if (!error.empty()) {
      EXPECT_THAT(error, HasSubstr("q.yaml:"));
      continue;
    }
    if (row.contains("error")) continue;
    const QuantizeRules rules = read();
    for (size_t i = 0; i < all.size(); ++i) {
      Sizes expected;
      for (const json& size : row["sizes"][i])
        expected.push_back(size.is_null() ? std::nullopt : std::optional(size.get<int64_t>()));
      EXPECT_EQ(sizes_of(rules, all[i]), expected) << all[i].name;
    }
    if (!row.contains("stages")) continue;
    std::vector<std::string> patterns;
    for (const StageRule& stage : rules.stages) patterns.push_back(stage.pattern);
    EXPECT_EQ(patterns, row["stages"].get<std::vector<std::string>>());
  }
}

constexpr const char* kUnquoted = "n_centroids:\n  Linear:\n    key: in_features\n    value:\n      1024: 16\n";

TEST(FairseqConfig, KeysThatAreNoTextsAreReported) {
  const LogCapture log;
  const WeightInfo fc1 = layers()[0];
  EXPECT_EQ(sizes_of(parse_quantize_rules(kUnquoted + std::string("      '*': 32\n"), "q.yaml"), fc1)[1], 32);
  EXPECT_THAT(log.text(), AllOf(HasSubstr("warning"), HasSubstr("q.yaml:5"), HasSubstr("1024 is an integer"),
                                HasSubstr("quote it: \"1024\"")));

  QuantizeRules rules = parse_quantize_rules(kUnquoted, "q.yaml");
  rules.stages = {{"", ""}};
  EXPECT_THAT(error_of([&] { make_plan(rules, std::vector{fc1}); }),
              AllOf(HasSubstr("in_features 1024"), HasSubstr("1024 (q.yaml:5) is an integer: quote it")));

  rules = parse_quantize_rules("\nblock_sizes: {Linear: {key: fuzzy_name, value: {fc: 8, on: 4}}}\n", "q.yaml");
  rules.stages = {{"", ""}};
  EXPECT_THAT(error_of([&] { make_plan(rules, std::vector{fc1}); }),
              AllOf(HasSubstr("q.yaml:2"), HasSubstr("on, which is a boolean"), HasSubstr("quote it: \"on\"")));
}

TEST(FairseqConfig, WhatFairseqIgnoresIsReported) {
  const LogCapture log;
  parse_quantize_rules("\nlayer_to_quantize: [a]\nbase: {}\n", "q.yaml");
  EXPECT_THAT(log.text(), AllOf(HasSubstr("q.yaml:2"), HasSubstr("did you mean 'layers_to_quantize'")));
  EXPECT_THAT(log.text(), AllOf(HasSubstr("q.yaml:3"), Not(HasSubstr("did you mean 'n_centroids'"))));
  parse_quantize_rules("n_centroids: {\n  Linar: {key: a, value: {'*': 2}}}\n", "r.yaml");
  EXPECT_THAT(log.text(), AllOf(HasSubstr("r.yaml:2"), HasSubstr("did you mean 'Linear'")));
  parse_quantize_rules("", "empty.yaml");
  EXPECT_THAT(log.text(), HasSubstr("empty.yaml: the file is empty"));
}

TEST(FairseqConfig, TablesKnowTheirPadding) {
  const TempDir dir;
  std::ofstream(dir / "q.yaml") << "block_sizes:\n  Embedding:\n    key: padding_idx\n    value: {'1': 8, None: 4}\n";
  Module module;
  const auto add_table = [&](const char* name, int64_t first_token) {
    module.root().table(name, first_token, 100, 64, {});
  };
  add_table("first", 0);
  add_table("second", 100);
  IpqConfig config;
  config.rules = (dir / "q.yaml").string();
  config.stages = {"first|second"};
  const std::vector<WeightPlan> planned = make_run_plan(module, {}, &config).quantized();
  ASSERT_EQ(planned.size(), 2u);
  EXPECT_EQ(planned[0].quantizer->kmeans()->block_size, 8);
  EXPECT_EQ(planned[1].quantizer->kmeans()->block_size, 4);
}

TEST(FairseqConfig, SeveralMergedMapsAreReported) {
  const LogCapture log;
  parse_quantize_rules("a: &a {fc: 8}\nx: {<<: *a, emb: 4}\n", "q.yaml");
  EXPECT_THAT(log.text(), Not(HasSubstr("6.0.4")));
  parse_quantize_rules("a: &a {fc: 8}\nb: &b {emb: 4}\nx: {<<: [*a, *b]}\n", "q.yaml");
  EXPECT_THAT(log.text(), AllOf(HasSubstr("warning"), HasSubstr("q.yaml:3"), HasSubstr("joins 2 maps")));
}

TEST(FairseqConfig, EmptyTextsAreTheDefaults) {
  const QuantizeRules expected = default_quantize_rules();
  for (const char* text : {"", "{}", "# nothing\n", "~"}) {
    const QuantizeRules rules = parse_quantize_rules(text, "empty.yaml");
    ASSERT_EQ(rules.stages.size(), expected.stages.size());
    EXPECT_EQ(rules.stages[0].pattern, expected.stages[0].pattern);
    EXPECT_EQ(rules.block_sizes.at("Linear").values, expected.block_sizes.at("Linear").values);
    EXPECT_EQ(rules.n_centroids.size(), 2u);
  }
}

TEST(FairseqConfig, KeepsTheOrderOfFuzzyNames) {
  const QuantizeRules rules =
      parse_quantize_rules("block_sizes: {Linear: {key: fuzzy_name, value: {zeta: 8, attn: 4, \"*\": 2}}}\n", "x.yaml");
  const std::vector<std::pair<std::string, int64_t>> expected = {{"zeta", 8}, {"attn", 4}, {"*", 2}};
  EXPECT_EQ(rules.block_sizes.at("Linear").values, expected);
  EXPECT_EQ(rules.block_sizes.count("Embedding"), 0u);  // a section that is there replaces the default
}

TEST(FairseqConfig, ReadsFiles) {
  const std::filesystem::path configs = std::filesystem::path(QN_SOURCE_DIR) / "configs";
  const QuantizeRules shipped = read_quantize_rules(configs / "fairseq_quantization.yaml");
  EXPECT_EQ(shipped.stages.size(), default_quantize_rules().stages.size());
  auto built_in = default_quantize_rules().block_sizes.at("Linear").values;
  EXPECT_EQ(built_in.back().first, "head");  // of RoBERTa, which the example knows nothing of
  built_in.pop_back();
  EXPECT_EQ(shipped.block_sizes.at("Linear").values, built_in);
  EXPECT_THAT(error_of([&] { read_quantize_rules(configs / "none.yaml"); }), HasSubstr("none.yaml"));
}

struct BadConfig {
  const char* name;
  const char* text;
  const char* place;
  const char* message;
};

class BadFairseqConfig : public testing::TestWithParam<BadConfig> {};

TEST_P(BadFairseqConfig, NamesLineAndKey) {
  const std::string message = error_of([] { parse_quantize_rules(GetParam().text, "q.yaml"); });
  EXPECT_THAT(message, AllOf(HasSubstr(GetParam().place), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadFairseqConfig,
    testing::Values(
        BadConfig{"not_yaml", "a: [1,\nb: }", "q.yaml:2", "not valid YAML"},
        BadConfig{"list", "- a\n", "q.yaml:1", "must be a map"},
        BadConfig{"key", "n_centroids:\n  Linear: {key: a, values: {\"*\": 2}}\n", "q.yaml:2",
                  "it has 'key', 'values'"},
        BadConfig{"attribute", "n_centroids:\n  Linear: {key: 1, value: {\"*\": 2}}\n", "q.yaml:2", "quote it: \"1\""},
        BadConfig{"quoted", "block_sizes:\n  Linear: {key: a, value: {fc: '8'}}\n", "q.yaml:2", "without quotes"},
        BadConfig{"huge", "block_sizes:\n  Linear: {key: a, value: {fc: 99999999999999999999}}\n", "q.yaml:2",
                  "positive integer"},
        BadConfig{"documents", "a: 1\n---\nb: 2\n", "q.yaml:2", "second YAML document"},
        BadConfig{"anchor", "a: &x 1\nb: &x 2\n", "q.yaml:2", "'&x' is defined twice"},
        BadConfig{"tag", "\na: !b c\n", "q.yaml:2", "tag '!b'"},
        BadConfig{"list_as_key", "\n? [a]\n: b\n", "q.yaml:2", "a list cannot be a key"},
        BadConfig{"merge", "\na: {<<: b}\n", "q.yaml:2", "not a text"},
        BadConfig{"number_as_pattern", "layers_to_quantize:\n  - 12\n", "q.yaml:2", "quote it: \"12\""},
        BadConfig{"missing", "n_centroids:\n  Linear: {key: a}\n", "q.yaml:2", "needs both"},
        BadConfig{"number", "block_sizes:\n  Linear:\n    key: a\n    value: {fc: eight}\n", "q.yaml:4",
                  "positive integer"},
        BadConfig{"zero", "block_sizes:\n  Linear:\n    key: a\n    value: {fc: 0}\n", "q.yaml:4", "positive integer"},
        BadConfig{"stages", "layers_to_quantize: fc\n", "q.yaml:1", "must be a list"},
        BadConfig{"pattern", "layers_to_quantize:\n  - [a]\n", "q.yaml:2", "must be a text"}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qn::test
