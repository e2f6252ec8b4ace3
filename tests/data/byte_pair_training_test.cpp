#include "data/byte_pair_training.h"

#include <omp.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "data/byte_pairs.h"
#include "data/parallel_text.h"
#include "data/prepare_pairs.h"
#include "data/prepare_table.h"
#include "data/sentence_pairs.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

/// The merges as merges.txt lists them.
std::vector<std::string> merges_of(const TrainedBytePairs& trained) {
  std::istringstream lines(trained.files.at(1).text);
  std::vector<std::string> merges;
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("#version")) merges.push_back(line);
  return merges;
}

std::vector<std::string> merges_of(const std::vector<std::string>& texts, const BytePairTraining& training) {
  return merges_of(train_byte_pairs(std::vector<std::string_view>(texts.begin(), texts.end()), training));
}

TEST(BytePairTraining, EqualsTheTokenizersPackage) {
  QN_GOLDEN(path, "byte_pairs.json");
  const auto golden = nlohmann::json::parse(read_text(path));
  ASSERT_GE(golden["cases"].size(), 6u);
  for (const auto& entry : golden["cases"]) {
    SCOPED_TRACE(entry["name"].get<std::string>());
    std::string text;
    for (const auto& line : entry["lines"]) text += line.get<std::string>() + "\n";
    const auto merges = merges_of({text}, {entry["size"], entry["min_frequency"]});
    EXPECT_EQ(merges, entry["merges"].get<std::vector<std::string>>());
  }
}

TEST(BytePairTraining, ByHand) {
  // "ab" 3 times; then "xy", "Ġx" and "abc" 2 times each, of which the one with the lowest left token comes first: x is
  // 87, the blank 220, "ab" 256. No pair goes beyond a word.
  EXPECT_EQ(merges_of({"abc abc\nab xy xy"}, {300, 2}),
            (std::vector<std::string>{"a b", "x y", "\xc4\xa0 xy", "ab c"}));
  EXPECT_EQ(merges_of({"abc abc\nab xy xy"}, {258, 2}), (std::vector<std::string>{"a b", "x y"}));
  EXPECT_EQ(merges_of({"abc abc\nab xy xy"}, {300, 3}), std::vector<std::string>{"a b"});
  EXPECT_THAT(merges_of({"abc abc\nab xy xy"}, {256, 2}), SizeIs(0));
  // White space at the ends of lines is none of the text, nor are the ends of lines.
  EXPECT_EQ(merges_of({"ab\r\n  ab \n\tab"}, {300, 1}), std::vector<std::string>{"a b"});
}

TEST(BytePairTraining, FilesAreATokenizer) {
  const std::vector<std::string_view> texts{"low low lower\n", "lower newest\n"};
  const TrainedBytePairs trained = train_byte_pairs(texts, {400, 2});
  EXPECT_EQ(trained.words, 5);  // "low", " low", " lower", "lower", " newest"
  EXPECT_LT(trained.size, 400);
  EXPECT_EQ(trained.frequency, 2);
  const auto tokenizer = make_tokenizer(trained.files);
  EXPECT_THAT(tokenizer->words(), SizeIs(static_cast<size_t>(trained.size)));
  EXPECT_EQ(tokenizer->words().front(), "0");
  std::vector<std::string_view> words;
  tokenizer->splitter()->split("lower \xf0\x9f\xa6\x99\"\\", words);
  EXPECT_EQ(tokenizer->join(words), "lower \xf0\x9f\xa6\x99\"\\");
  EXPECT_EQ(words.size(), 2u + 7u);  // "low", "er"; the rest in bytes
  EXPECT_TRUE(make_tokenizer(train_byte_pairs(texts, {256, 2}).files)->contains("255"));
}

TEST(BytePairTraining, ThreadsAndOrderPlayNoPart) {
  // More than a piece of text for each of several threads, of words in changing order.
  std::string text;
  for (int64_t i = 0; i < 400000; ++i) {
    text += fmt::format("w{} {:x} {}\n", i % 977, i * 7919 % 4093, i % 31);
  }
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = merges_of({text}, {500, 2});
  omp_set_num_threads(4);
  const auto four = merges_of(
      {text.substr(text.find('\n', text.size() / 2) + 1), text.substr(0, text.find('\n', text.size() / 2) + 1)},
      {500, 2});
  omp_set_num_threads(before);
  EXPECT_THAT(one, SizeIs(244));
  EXPECT_EQ(one, four);
}

TEST(BytePairTraining, OneLongWordIsNoTrouble) {
  // Every merge goes to the places of its pair; one that went through the word would take hours.
  std::string text;
  uint32_t state = 1;
  for (int i = 0; i < 1 << 20; ++i)
    text += static_cast<char>('a' + ((state = state * 1664525 + 1013904223) >> 24) % 26);
  EXPECT_THAT(merges_of({text}, {4000, 2}), SizeIs(4000 - 256));
}

TEST(BytePairTraining, WhatCannotBe) {
  EXPECT_THROW(merges_of({"ab"}, {255, 2}), UsageError);
  EXPECT_THAT(error_of([] { merges_of({" \n\n"}, {300, 2}); }), HasSubstr("no word"));
}

TEST(BytePairTraining, WikiText2HasTheSameMergesWhereverItIsCut) {
  QN_DATA_OR_SKIP(text, "wikitext-2");
  const std::string valid = read_text(text / "valid.txt");
  const auto whole = merges_of({valid}, {2000, 2});
  const size_t middle = valid.find('\n', valid.size() / 2) + 1;
  EXPECT_EQ(whole, merges_of({valid.substr(middle), valid.substr(0, middle)}, {2000, 2}));
  EXPECT_THAT(whole, SizeIs(2000 - 256));
  EXPECT_EQ(whole.front(), "\xc4\xa0 t");
}

class Prepared : public testing::Test {
 protected:
  Prepared() {
    options_.destdir = dir_ / "data";
    options_.training = {260, 1};
    options_.limits.padding_factor = 1;
  }
  std::filesystem::path write(const std::string& name, const std::string& content) {
    write_text(dir_ / name, content);
    return dir_ / name;
  }
  TempDir dir_;
  PrepareOptions options_;
};

TEST_F(Prepared, Texts) {
  options_.train = write("train.txt", "low lower low lower\n");
  options_.valid = {write("valid.txt", "lo \xc3\xa9\n")};
  const PrepareSummary summary = prepare(options_);
  ASSERT_TRUE(summary.trained);
  EXPECT_EQ(summary.types, 4 + 260);  // all of them, also those that the text does not have
  EXPECT_EQ(summary.splits.at(1).unknown, 0);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "data" / "tokenizer" / "vocab.json"));
  EXPECT_THAT(read_text(dir_ / "data" / "tokenizer" / "merges.txt"), StartsWith("#version: 0.2\nl o\nlo w\n"));
  // Other texts get the same pieces.
  PrepareOptions other;
  other.train = write("other.txt", "unlike it in all\n");
  other.destdir = dir_ / "other";
  other.tokenizer = open_tokenizer(dir_ / "data" / "tokenizer");
  other.srcdict = dir_ / "data" / "dict.txt";
  EXPECT_EQ(prepare(other).splits.at(0).unknown, 0);
  EXPECT_EQ(read_text(dir_ / "other" / "dict.txt"), read_text(dir_ / "data" / "dict.txt"));
}

TEST_F(Prepared, BothSentencesOfATable) {
  PrepareTableOptions table;
  table.text = options_;
  table.text.train = write("train.tsv", "sentence1\tsentence2\tlabel\nlow low\tzebra zebra\tyes\nlow\tzebra\tyep\n");
  const PrepareTableSummary summary = prepare_table(table);
  EXPECT_EQ(summary.text.types, 4 + 260);
  const std::string merges = read_text(dir_ / "data" / "tokenizer" / "merges.txt");
  EXPECT_THAT(merges, AllOf(HasSubstr("\nb r\n"), HasSubstr("\nl o\n"), testing::Not(HasSubstr("y e"))));
  EXPECT_EQ(SentencePairs(SentencePairFolder(dir_ / "data"), "train").size(), 2);
}

TEST_F(Prepared, BothLanguagesOfATranslation) {
  PreparePairsOptions pairs;
  pairs.text = options_;
  pairs.set_languages("de-en");
  write("train.de", "Haus Haus\n");
  write("train.en", "dog dog\n");
  pairs.text.train = dir_ / "train";
  int64_t target_types = 0;
  EXPECT_EQ(prepare_pairs(pairs, target_types).types, 4 + 260);
  EXPECT_EQ(target_types, 4 + 260);
  EXPECT_THAT(read_text(dir_ / "data" / "tokenizer" / "merges.txt"), AllOf(HasSubstr("\nH a\n"), HasSubstr("\nd o\n")));
  pairs.target_dict = dir_ / "data" / "dict.en.txt";
  EXPECT_THROW(prepare_pairs(pairs, target_types), UsageError);
}

TEST_F(Prepared, WhatContradictsTraining) {
  options_.train = write("train.txt", "low lower\n");
  options_.srcdict = write("dict.txt", "low 1\n");
  EXPECT_THROW(prepare(options_), UsageError);
  options_.train.clear();
  options_.valid = {dir_ / "train.txt"};
  EXPECT_THROW(prepare(options_), UsageError);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "data"));
}

}  // namespace
}  // namespace qn::test
