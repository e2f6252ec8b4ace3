#include "data/dictionary.h"

#include "data_test_util.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<std::string> symbols_of(const Dictionary& dictionary) {
  std::vector<std::string> symbols;
  for (int32_t id = 0; id < dictionary.size(); ++id) symbols.emplace_back(dictionary.symbol(id));
  return symbols;
}

Dictionary counted(std::initializer_list<std::pair<const char*, int64_t>> counts) {
  Dictionary dictionary;
  for (const auto& [token, count] : counts) dictionary.add(token, count);
  return dictionary;
}

TEST(Dictionary, SortsByCountThenCodePoint) {
  Dictionary d = counted({{"z", 2}, {"\U0001f600", 5}, {"\uffee", 5}, {"b", 5}, {"a", 1}, {"z", 1}, {"B", 5}});
  d.finalize({.padding_factor = 1});
  EXPECT_EQ(symbols_of(d),
            (std::vector<std::string>{"<s>", "<pad>", "</s>", "<unk>", "B", "b", "\uffee", "\U0001f600", "z", "a"}));
  EXPECT_EQ(d.count(d.index("z")), 3);
  EXPECT_EQ(d.index("nowhere"), kUnkId);
  EXPECT_EQ(d.index("</s>"), kEosId);
}

TEST(Dictionary, CutsAndPads) {
  const auto make = [] { return counted({{"a", 4}, {"b", 3}, {"c", 2}, {"d", 2}, {"e", 1}}); };
  Dictionary d = make();
  d.finalize({.threshold = 2});
  EXPECT_EQ(symbols_of(d), (std::vector<std::string>{"<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "d"}));
  d = make();
  d.finalize({.nwords = 7});
  EXPECT_EQ(d.size(), 8);
  EXPECT_EQ(d.symbol(7), "madeupword0000");
  EXPECT_EQ(d.count(7), 0);
  EXPECT_EQ(d.index("d"), kUnkId);
  // Nine entries are padded to twelve; a word spelled like a padding word is not added twice.
  d = counted({{"a", 4}, {"b", 3}, {"madeupword0001", 2}, {"d", 2}, {"e", 1}});
  d.finalize({.padding_factor = 6});
  EXPECT_EQ(d.size(), 12);
  EXPECT_EQ(d.symbol(9), "madeupword0000");
  EXPECT_EQ(d.symbol(10), "madeupword0002");
  EXPECT_EQ(d.count(d.index("madeupword0001")), 2);
  EXPECT_THAT(error_of([&] { make().finalize({.nwords = 4}); }), HasSubstr("nwords=4"));
  EXPECT_THAT(error_of([&] { make().finalize({.padding_factor = 0}); }), HasSubstr("padding_factor"));
}

TEST(Dictionary, SpecialsInTheTextCountForTheSpecials) {
  Dictionary d = counted({{"<unk>", 10}, {"a", 1}});
  d.finalize({.padding_factor = 1});
  EXPECT_EQ(d.size(), 5);
  EXPECT_EQ(d.count(kUnkId), 11);
}

TEST(Dictionary, FindsEveryTokenOfALargeVocabulary) {
  constexpr int kTypes = 20000;
  Dictionary d;
  for (int i = 0; i < kTypes; ++i) d.add("word" + std::to_string(i), i + 1);
  for (int i = 0; i < kTypes; ++i) ASSERT_EQ(d.symbol(d.index("word" + std::to_string(i))), "word" + std::to_string(i));
  d.finalize({});
  EXPECT_EQ(d.size(), 20008);
  for (int i = 0; i < kTypes; ++i) ASSERT_EQ(d.index("word" + std::to_string(i)), 4 + kTypes - 1 - i);
}

TEST(Dictionary, SaveAndLoad) {
  const TempDir dir;
  Dictionary d = counted({{"caf\u00e9", 12}, {"#", 3}, {"a", 2}});
  d.finalize({});
  d.save(dir / "dict.txt");
  EXPECT_EQ(read_text(dir / "dict.txt"), "caf\u00e9 12\n# 3\na 2\nmadeupword0000 0\n");
  const Dictionary loaded = Dictionary::load(dir / "dict.txt");
  EXPECT_EQ(symbols_of(loaded), symbols_of(d));
  EXPECT_EQ(loaded.count(4), 12);
  EXPECT_EQ(loaded.hash(), d.hash());
  EXPECT_NE(loaded.hash(), Dictionary().hash());
}

TEST(Dictionary, HashDependsOnOrderAndBorders) {
  const uint64_t hash = counted({{"ab", 1}, {"c", 1}}).hash();
  EXPECT_NE(hash, counted({{"c", 1}, {"ab", 1}}).hash());
  EXPECT_NE(hash, counted({{"a", 1}, {"bc", 1}}).hash());
  EXPECT_EQ(hash, counted({{"ab", 7}, {"c", 1}}).hash());
}

TEST(Dictionary, LoadSplitsAtTheLastSpace) {
  const TempDir dir;
  write_text(dir / "dict.txt", "new york 7\r\n x  3 \nlast 1");
  const Dictionary d = Dictionary::load(dir / "dict.txt");
  EXPECT_EQ(d.index("new york"), 4);
  EXPECT_EQ(d.count(4), 7);
  EXPECT_EQ(d.index("last"), 6);
}

TEST(Dictionary, OverwriteFlagTakesTheTokenOver) {
  const TempDir dir;
  const std::string text = "a 3\n<s> 0 #fairseq:overwrite\na 5 #fairseq:overwrite\nb 1\n";
  write_text(dir / "dict.txt", text);
  const Dictionary d = Dictionary::load(dir / "dict.txt");
  EXPECT_EQ(d.size(), 8);
  EXPECT_EQ(d.index("a"), 6);
  EXPECT_EQ(d.index("<s>"), 5);
  EXPECT_EQ(d.symbol(4), "a");
  d.save(dir / "copy.txt");
  EXPECT_EQ(read_text(dir / "copy.txt"), text);
}

TEST(Dictionary, BadFilesNameTheLine) {
  const TempDir dir;
  const auto load_error = [&](const std::string& text) {
    write_text(dir / "dict.txt", text);
    return error_of([&] { Dictionary::load(dir / "dict.txt"); });
  };
  EXPECT_THAT(load_error("a 3\nb 2\na 1\n"), AllOf(HasSubstr("dict.txt:3:"), HasSubstr("'a' is there twice")));
  EXPECT_THAT(load_error("<unk> 3\n"), HasSubstr("dict.txt:1:"));
  for (const char* bad :
       {"b", "b two", "b 1.5", "b -1", "", "b\t1", "b 99999999999999999999", "b #fairseq:overwrite"}) {
    EXPECT_THAT(load_error(std::string("a 3\n") + bad + "\n"),
                AllOf(HasSubstr("dict.txt:2:"), HasSubstr("<token> <count>")))
        << bad;
  }
  EXPECT_THAT(load_error("a 3\nb\xff 2\n"), AllOf(HasSubstr("dict.txt:2:"), HasSubstr("UTF-8")));
  EXPECT_THAT(error_of([&] { Dictionary::load(dir / "none.txt"); }), HasSubstr("none.txt"));
}

}  // namespace
}  // namespace qn::test
