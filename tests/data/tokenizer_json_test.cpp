#include "data/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "data/byte_pairs.h"
#include "data/word_pieces.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Tokenizer> read(const json& content) {
  return read_tokenizer_json({"folder/tokenizer.json", content.dump()});
}
std::string error(const json& content) {
  return error_of([&] { read(content); });
}

json tiny_pairs() {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  const json vocabulary = json::parse(read_text(dir / "encoder.json"));
  const std::string blank = "\xc4\xa0";
  return {{"added_tokens", {{{"id", 262}, {"content", "<|endoftext|>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", vocabulary},
            {"merges", {"l o", "lo w", "e r", blank + " low", blank + "low er", "w e"}}}}};
}

TEST(TokenizerJson, BytePairsEqualTheTokenizersPackage) {
  QN_GOLDEN(path, "byte_pairs.json");
  const json all = json::parse(read_text(path));
  json content = all["tokenizer"];
  const auto texts = all["texts"].get<std::vector<std::string>>();
  ASSERT_EQ(all["encodings"].size(), 4u);
  for (const json& encoding : all["encodings"]) {
    SCOPED_TRACE(encoding.dump());
    content["pre_tokenizer"]["add_prefix_space"] = encoding["add_prefix_space"];
    content["pre_tokenizer"]["use_regex"] = encoding["use_regex"];
    const auto tokenizer = read(content);
    const auto& pairs = dynamic_cast<const BytePairs&>(*tokenizer);
    for (size_t i = 0; i < texts.size(); ++i) {
      std::vector<int32_t> ids;
      BytePairs::Encoder(pairs).encode(texts[i], ids);
      EXPECT_EQ(ids, encoding["ids"][i].get<std::vector<int32_t>>()) << texts[i];
      std::vector<std::string_view> words;
      tokenizer->splitter()->split(texts[i], words);
      EXPECT_EQ(tokenizer->join(words), texts[i]);
    }
  }
}

TEST(TokenizerJson, WordPiecesEqualTheTokenizersPackage) {
  QN_GOLDEN(path, "wordpiece.json");
  const json all = json::parse(read_text(path));
  json vocabulary;
  for (const json& token : all["vocabulary"]) vocabulary[token.get<std::string>()] = vocabulary.size();
  const auto content = [&](bool lower, const json& strip) {
    return json{{"normalizer",
                 {{"type", "BertNormalizer"},
                  {"clean_text", true},
                  {"handle_chinese_chars", true},
                  {"strip_accents", strip},
                  {"lowercase", lower}}},
                {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
                {"added_tokens", {{{"id", vocabulary["[UNK]"]}, {"content", "[UNK]"}, {"special", true}}}},
                {"model",
                 {{"type", "WordPiece"},
                  {"unk_token", "[UNK]"},
                  {"continuing_subword_prefix", "##"},
                  {"max_input_chars_per_word", 100},
                  {"vocab", vocabulary}}}};
  };
  const std::map<std::string, json> files = {{"uncased", content(true, nullptr)},
                                             {"cased", content(false, nullptr)},
                                             {"lower_with_accents", content(true, false)},
                                             {"cased_without_accents", content(false, true)}};
  for (const auto& [name, expected] : all["ids"].items()) {
    SCOPED_TRACE(name);
    const auto tokenizer = read(files.at(name));
    for (size_t i = 0; i < expected.size(); ++i) {
      std::vector<int32_t> ids;
      WordPieces::Encoder(dynamic_cast<const WordPieces&>(*tokenizer)).encode(all["texts"][i].get<std::string>(), ids);
      EXPECT_EQ(ids, expected[i].get<std::vector<int32_t>>()) << all["texts"][i];
    }
  }
}

TEST(TokenizerJson, IsFoundWhereThereIsNothingElse) {
  const TempDir dir;
  write_text(dir / "tokenizer.json", tiny_pairs().dump());
  const auto tokenizer = open_tokenizer(dir.path());
  std::vector<std::string_view> words;
  tokenizer->splitter()->split(" lower!", words);
  EXPECT_THAT(words, ElementsAre("260", "0"));
  save_tokenizer(dir / "data", tokenizer.get());
  EXPECT_EQ(read_text(dir / "data" / "tokenizer" / "tokenizer.json"), read_text(dir / "tokenizer.json"));
  EXPECT_TRUE(find_tokenizer(dir / "data" / "tokenizer")->contains("262"));
  save_tokenizer(dir / "data", nullptr);
  EXPECT_FALSE(std::filesystem::exists(dir / "data" / "tokenizer"));
  // The two files of older programs come first: they say the same.
  write_tiny_pairs(dir.path());
  EXPECT_EQ(open_tokenizer(dir.path())->files().size(), 2u);
}

TEST(TokenizerJson, MergesInBothForms) {
  json content = tiny_pairs();
  for (json& merge : content["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_EQ(dynamic_cast<BytePairs&>(*read(content)).find("we"), 261);
  content["model"]["merges"][1] = {"lo", "w", "x"};
  EXPECT_THAT(error(content), AllOf(HasSubstr("tokenizer.json: merge 2"), HasSubstr("two tokens")));
  content["model"]["merges"][1] = "lo w e";
  EXPECT_THAT(error(content), HasSubstr("merge 2"));
  content["model"]["merges"][1] = {"lo", "x"};
  EXPECT_THAT(error(content), AllOf(HasSubstr("merge 2"), HasSubstr("no token 'lox'")));
  content["model"]["merges"].erase(1);
  EXPECT_THAT(error(content), AllOf(HasSubstr("has 5 merges"), HasSubstr("'low'")));
}

TEST(TokenizerJson, WhatWouldCutTextsOtherwiseIsRefused) {
  const auto with = [](const char* pointer, const json& value) {
    json content = tiny_pairs();
    content[json::json_pointer(pointer)] = value;
    return error(content);
  };
  EXPECT_THAT(with("/normalizer", {{"type", "NFC"}}), AllOf(HasSubstr("normalizer"), HasSubstr("NFC")));
  EXPECT_THAT(with("/pre_tokenizer", nullptr), AllOf(HasSubstr("pre_tokenizer"), HasSubstr("'ByteLevel'")));
  EXPECT_THAT(with("/pre_tokenizer/type", "Sequence"), HasSubstr("Sequence"));
  EXPECT_THAT(with("/pre_tokenizer/use_regex", 1), AllOf(HasSubstr("use_regex"), HasSubstr("true or false")));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("'Unigram'"));
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(with("/model/ignore_merges", true), HasSubstr("ignore_merges"));
  EXPECT_THAT(with("/model/vocab", nullptr), HasSubstr("no vocabulary"));
  EXPECT_THAT(with("/model/merges", nullptr), HasSubstr("no merges"));
  EXPECT_THAT(with("/added_tokens", {{{"id", 263}, {"content", "  "}, {"special", false}}}), HasSubstr("'  '"));
  EXPECT_THAT(with("/added_tokens/0/id", 5), AllOf(HasSubstr("<|endoftext|>"), HasSubstr("262 and 5")));
  EXPECT_THAT(with("/added_tokens/0/id", 1e99), HasSubstr("whole number"));
  EXPECT_THAT(with("/model", 1), HasSubstr("no object"));
  EXPECT_THAT(error(json::array()), HasSubstr("no tokenizer"));
  EXPECT_THAT(error_of([] { read_tokenizer_json({"tokenizer.json", "{\"model\""}); }), HasSubstr("no JSON"));

  json pieces{{"normalizer", {{"type", "BertNormalizer"}, {"clean_text", true}}},
              {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
              {"model",
               {{"type", "WordPiece"},
                {"unk_token", "[UNK]"},
                {"continuing_subword_prefix", "##"},
                {"max_input_chars_per_word", 100},
                {"vocab", {{"[UNK]", 0}, {"a", 1}}}}}};
  EXPECT_TRUE(read(pieces)->contains("a"));
  const auto broken = [&](const char* pointer, const json& value) {
    json content = pieces;
    content[json::json_pointer(pointer)] = value;
    return error(content);
  };
  EXPECT_THAT(broken("/model/vocab/a", 2), HasSubstr("0 to 1"));
  EXPECT_THAT(broken("/model/vocab/a", 0), HasSubstr("0 to 1"));
  EXPECT_THAT(broken("/model/unk_token", "<unk>"), HasSubstr("unk_token"));
  EXPECT_THAT(broken("/model/max_input_chars_per_word", 50), HasSubstr("max_input_chars_per_word"));
  EXPECT_THAT(broken("/normalizer", nullptr), HasSubstr("BertNormalizer"));
  EXPECT_THAT(broken("/normalizer/clean_text", false), HasSubstr("clean_text"));
}

}  // namespace
}  // namespace qn::test
