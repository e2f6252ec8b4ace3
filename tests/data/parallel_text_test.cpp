#include "data/parallel_text.h"

#include "data/prepare_pairs.h"
#include "data_test_util.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

class Pairs : public testing::Test {
 protected:
  Pairs() {
    write_text(dir_ / "train.de", "ein Haus\nein ein Hund\n\n");
    write_text(dir_ / "train.en", "a house\na dog\r\n\n");
    write_text(dir_ / "valid.de", "Hund\n");
    write_text(dir_ / "valid.en", "dog");
    options_.set_languages("de-en");
    options_.text.train = dir_ / "train";
    options_.text.valid = {dir_ / "valid"};
    options_.text.destdir = dir_ / "data";
    options_.text.limits.padding_factor = 1;
  }
  PrepareSummary run() { return prepare_pairs(options_, target_types_); }
  std::string error() {
    return error_of([&] { run(); });
  }
  TempDir dir_;
  PreparePairsOptions options_;
  int64_t target_types_ = 0;
};

TEST_F(Pairs, TwoDictionaries) {
  const PrepareSummary summary = run();
  EXPECT_EQ(summary.types, 4 + 3);
  EXPECT_EQ(target_types_, 4 + 3);
  EXPECT_EQ(read_text(dir_ / "data" / "dict.de.txt"), "ein 3\nHaus 1\nHund 1\n");
  EXPECT_EQ(read_text(dir_ / "data" / "dict.en.txt"), "a 2\ndog 1\nhouse 1\n");
  const ParallelFolder folder(dir_ / "data");
  EXPECT_EQ(folder.source_language, "de");
  EXPECT_EQ(folder.target_language, "en");
  EXPECT_FALSE(folder.joined());
  const ParallelText train(folder, "train"), valid(folder, "valid");
  ASSERT_EQ(train.size(), 3);
  EXPECT_EQ(train.source(1), (Ids{4, 4, 6, kEosId}));
  EXPECT_EQ(train.target(1), (Ids{4, 5, kEosId}));
  EXPECT_EQ(train.source(2), (Ids{kEosId}));
  EXPECT_EQ(train.source_sizes(), (std::vector<int32_t>{3, 4, 1}));
  EXPECT_EQ(train.target_sizes(), (std::vector<int32_t>{3, 3, 1}));
  EXPECT_EQ(valid.target(0), (Ids{5, kEosId}));
  EXPECT_NE(train.checksum(), valid.checksum());
}

TEST_F(Pairs, OneDictionary) {
  options_.joined = true;
  EXPECT_EQ(run().types, 4 + 6);
  const ParallelFolder folder(dir_ / "data");
  EXPECT_TRUE(folder.joined());
  EXPECT_EQ(folder.source.symbol(4), "ein");
  EXPECT_EQ(folder.source.symbol(5), "a");
  // What is added later fits.
  options_.text.srcdict = dir_ / "data" / "dict.de.txt";
  options_.text.train.clear();
  options_.text.test = {dir_ / "valid"};
  run();
  EXPECT_EQ(ParallelText(ParallelFolder(dir_ / "data"), "test").target(0), ParallelText(folder, "valid").target(0));
  // What would not fit is refused, and nothing changes.
  options_.text.srcdict.clear();
  options_.text.train = dir_ / "valid";
  options_.text.valid.clear();
  EXPECT_THAT(error(), AllOf(HasSubstr("another dictionary"), HasSubstr("valid.de-en.de")));
  EXPECT_EQ(ParallelText(folder, "train").size(), 3);
}

TEST_F(Pairs, PiecesOfATokenizer) {
  write_tiny_pairs(dir_ / "pairs");
  options_.text.tokenizer = open_tokenizer(dir_ / "pairs");
  write_text(dir_ / "train.en", "low lower\na dog\n\n");
  run();
  const ParallelFolder folder(dir_ / "data");
  EXPECT_EQ(ParallelText(folder, "train").target(0),
            (Ids{folder.target.index("257"), folder.target.index("260"), kEosId}));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "data" / "tokenizer" / "vocab.bpe"));
}

TEST_F(Pairs, WhatDoesNotFitIsNamed) {
  write_text(dir_ / "valid.en", "dog\ncat\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("valid.de has 1 lines"), HasSubstr("valid.en has 2")));
  std::filesystem::remove(dir_ / "valid.en");
  EXPECT_THAT(error(), AllOf(HasSubstr("valid.en"), HasSubstr("no such file")));
  write_text(dir_ / "valid.en", "\xff\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("valid.en:1"), HasSubstr("UTF-8")));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "data"));
  for (const char* bad : {"de", "de-", "-en", "de-de", "a.b-c", "a-b-c"})
    EXPECT_THROW(options_.set_languages(bad), UsageError) << bad;
  EXPECT_THAT(error_of([&] { ParallelFolder(dir_.path()); }), HasSubstr("prepare --pairs"));
}

TEST_F(Pairs, DamagedFoldersAreNamed) {
  run();
  make_stream(dir_ / "data" / "valid.de-en.de", std::vector<int64_t>{1, 1}, std::vector<int64_t>{2, 2});
  std::filesystem::remove(dir_ / "data" / "valid.de-en.de.sum");
  EXPECT_THAT(error_of([&] { ParallelText(ParallelFolder(dir_ / "data"), "valid"); }),
              AllOf(HasSubstr("valid.de-en.de has 2 lines"), HasSubstr("has 1")));
  std::filesystem::copy(dir_ / "data" / "train.de-en.de.idx", dir_ / "data" / "train.fr-en.fr.idx");
  EXPECT_THAT(error_of([&] { ParallelFolder(dir_ / "data"); }), HasSubstr("several pairs of languages"));
}

}  // namespace
}  // namespace qn::test
