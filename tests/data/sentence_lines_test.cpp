#include "data/sentence_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "data/prepare_table.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using Ids = std::vector<int32_t>;

class Lines : public testing::Test {
 protected:
  Lines() {
    std::ofstream(dir_ / "a.txt") << "x y\n\ny\n";
    std::ofstream(dir_ / "pairs.tsv") << "sentence1\tsentence2\tlabel\nx y\ty\tno\ny\tx\tyes\n";
    prepare({.train = dir_ / "a.txt", .valid = {}, .test = {}, .destdir = dir_ / "text", .limits = {}, .srcdict = {}});
    PrepareTableOptions table;
    table.text = {.train = dir_ / "pairs.tsv",
                  .valid = {},
                  .test = {},
                  .destdir = dir_ / "table",
                  .limits = {},
                  .srcdict = dir_ / "text" / "dict.txt"};
    prepare_table(table);
  }
  SentenceLines open(const std::string& folder, const std::string& split = "train") const {
    return {dir_ / folder, Dictionary::load(sentence_dictionary(dir_ / folder)), split};
  }
  TempDir dir_;
};

TEST_F(Lines, OfTextsAndOfTables) {
  const Dictionary dictionary = Dictionary::load(dir_ / "text" / "dict.txt");
  const int32_t x = dictionary.index("x"), y = dictionary.index("y");
  const SentenceLines text = open("text");
  ASSERT_EQ(text.size(), 3);
  EXPECT_EQ(text.sentence(0), (Ids{x, y, kEosId}));
  EXPECT_EQ(text.sentence(1), (Ids{kEosId}));
  EXPECT_EQ(text.length(2), 2);
  const SentenceLines table = open("table");
  ASSERT_EQ(table.size(), 4);
  EXPECT_EQ(table.sentence(1), (Ids{y, kEosId}));
  EXPECT_EQ(table.sentence(2), (Ids{y, kEosId}));
  EXPECT_EQ(table.sentence(3), (Ids{x, kEosId}));
  EXPECT_EQ(table.length(0), 3);
  EXPECT_NE(table.checksum(), text.checksum());
}

TEST_F(Lines, WhatIsMissingIsNamed) {
  EXPECT_THAT([&] { open("text", "valid"); }, testing::ThrowsMessage<Error>(HasSubstr("valid")));
  EXPECT_THAT([&] { open("nowhere"); }, testing::ThrowsMessage<UsageError>(HasSubstr("no such folder")));
  std::filesystem::create_directories(dir_ / "empty");
  EXPECT_THAT([&] { open("empty"); }, testing::ThrowsMessage<UsageError>(HasSubstr("neither dict.txt nor input0")));
}

}  // namespace
}  // namespace qn::test
