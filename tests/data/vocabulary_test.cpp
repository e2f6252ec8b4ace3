// A vocabulary as parts, and back.
#include "data/vocabulary.h"

#include <nlohmann/json.hpp>

#include "core/zlib_stream.h"
#include "data/byte_pair_model.h"
#include "data/stored_tokenizer.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Key;
using testing::UnorderedElementsAre;

/// There and back; expects the same ids for the same words.
Vocabulary there_and_back(const Vocabulary& given) {
  const VocabularyParts parts = parts_of(given);
  Vocabulary back = vocabulary_of(parts, "file");
  EXPECT_EQ(back.dictionary.hash(), given.dictionary.hash());
  EXPECT_EQ(parts_of(back), parts);
  return back;
}

std::string error_of_parts(VocabularyParts parts, const char* name, const std::string& text) {
  parts[name] = text;
  return error_of([&] { vocabulary_of(parts, "file"); });
}

Dictionary dictionary_of(const std::vector<std::string_view>& words) { return Dictionary::of_tokens(words); }

TEST(StoredVocabulary, WordsOfATextInTheirOrder) {
  Vocabulary given;
  given.dictionary = dictionary_of({"the", "a b", "\xc3\xa9", "madeupword0000", "again", "again"});
  given.source = dictionary_of({"le", "</s>"});
  const Vocabulary back = there_and_back(given);
  EXPECT_EQ(back.tokenizer, nullptr);
  EXPECT_EQ(back.dictionary.index("again"), 9);  // the later one has the name
  EXPECT_EQ(back.dictionary.symbol(8), "again");
  EXPECT_EQ(back.source_dictionary().symbol(4), "le");
  EXPECT_EQ(back.source_dictionary().hash(), given.source->hash());
  EXPECT_EQ(back.text_of(std::vector<int32_t>{4, 6, 2}, ""), "the \xc3\xa9");
  EXPECT_EQ(back.text_of(std::vector<int32_t>{4, 6, 2}, "e"), "th\xc3\xa9");
  const VocabularyParts parts = parts_of(given);
  EXPECT_THAT(parts, UnorderedElementsAre(Key("words"), Key("source_words")));
  EXPECT_THAT(error_of_parts(parts, "words", "the\na"), HasSubstr("file: words ends within a line"));
  EXPECT_THAT(error_of_parts(parts, "words", "th\xff\n"), HasSubstr("file: words"));
  EXPECT_THAT(error_of([] { vocabulary_of({}, "file"); }), HasSubstr("file has no part 'words'"));
}

/// The vocabulary in `dir`, whose dictionary is `words`.
Vocabulary tokenized(const std::filesystem::path& dir, const std::vector<std::string_view>& words) {
  return {open_tokenizer(dir), dictionary_of(words), {}};
}

void expect_same_pairs(const Vocabulary& a, const Vocabulary& b) {
  EXPECT_EQ(a.tokenizer->words(), b.tokenizer->words());
  const auto model = [](const Vocabulary& v) {
    return read_byte_pairs(v.tokenizer->files()[0], v.tokenizer->files()[1]);
  };
  const BytePairModel x = model(a), y = model(b);
  EXPECT_EQ(x.ids, y.ids);
  ASSERT_EQ(x.merges.size(), y.merges.size());
  for (size_t i = 0; i < x.merges.size(); ++i)
    ASSERT_TRUE(x.merges[i].left == y.merges[i].left && x.merges[i].right == y.merges[i].right) << i;
}

TEST(StoredVocabulary, BytePairsAsTheirMerges) {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  const Vocabulary given = tokenized(dir.path(), {"260", "0", "262", "madeupword0000"});
  const VocabularyParts parts = parts_of(given);
  EXPECT_THAT(parts, UnorderedElementsAre(Key("merges"), Key("ids"), Key("others"), Key("words"), Key("word_places")));
  EXPECT_EQ(parts.at("words"), "madeupword0000\n");
  const Vocabulary back = there_and_back(given);
  expect_same_pairs(given, back);
  std::vector<std::string_view> words;
  back.tokenizer->splitter()->split(" lower!", words);
  EXPECT_THAT(words, ElementsAre("260", "0"));
  EXPECT_EQ(back.text_of(std::vector<int32_t>{4, 5, 2}, ""), " lower!");
  const auto numbers = [](const std::vector<int32_t>& n) { return number_planes(n); };
  EXPECT_THAT(error_of_parts(parts, "merges", "ab"), HasSubstr("file: merges has 2 bytes"));
  EXPECT_THAT(error_of_parts(parts, "merges", numbers({1, 2, 3})), HasSubstr("pairs are due"));
  EXPECT_THAT(error_of_parts(parts, "merges", numbers({256, 0})), HasSubstr("takes a later token"));
  EXPECT_THAT(error_of_parts(parts, "ids", numbers({0, 1})), HasSubstr("262 tokens are due"));
  EXPECT_THAT(error_of_parts(parts, "others", "[1]"), HasSubstr("an object of tokens"));
  EXPECT_THAT(error_of_parts(parts, "word_places", numbers({4000})), HasSubstr("is no word of the tokenizer"));
  EXPECT_THAT(error_of_parts(parts, "word_places", numbers({0})), HasSubstr("1 words that no place asks for"));
  VocabularyParts half = parts;
  half.erase("ids");
  EXPECT_THAT(error_of([&] { vocabulary_of(half, "file"); }), HasSubstr("file has no part 'ids'"));
  std::vector<int32_t> doubling(120);  // tokens of 2^i bytes
  for (int32_t i = 1; i < 60; ++i) doubling[static_cast<size_t>(i)] = doubling[static_cast<size_t>(60 + i)] = 255 + i;
  EXPECT_THAT(error_of_parts(parts, "merges", numbers(doubling)), HasSubstr("makes more than"));
}

TEST(StoredVocabulary, BytePairsNumberedOtherwise) {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  // As Hugging Face's RoBERTa: specials first, the rest backwards.
  const auto gpt2 = nlohmann::json::parse(read_text(dir / "encoder.json"));
  nlohmann::json vocabulary{{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}};
  const auto last = static_cast<int>(gpt2.size()) + 3;
  for (const auto& [token, number] : gpt2.items()) vocabulary[token] = last - number.get<int>();
  vocabulary["<mask>"] = last + 1;
  write_text(dir / "encoder.json", vocabulary.dump());
  const Vocabulary given = tokenized(dir.path(), {"260", "<mask>"});
  const Vocabulary back = there_and_back(given);
  expect_same_pairs(given, back);
  EXPECT_TRUE(back.tokenizer->contains("<mask>"));
}

TEST(StoredVocabulary, BytePairsThatDoNotFollowFromTheirMerges) {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  // "lo w" comes before "l o", of which it is made.
  std::string merges = read_text(dir / "vocab.bpe");
  merges.replace(merges.find("l o\nlo w\n"), 9, "lo w\nl o\n");
  write_text(dir / "vocab.bpe", merges);
  const Vocabulary given = tokenized(dir.path(), {"257"});
  EXPECT_THAT(parts_of(given),
              UnorderedElementsAre(Key("encoder.json"), Key("vocab.bpe"), Key("words"), Key("word_places")));
  expect_same_pairs(given, there_and_back(given));
}

TEST(StoredVocabulary, WordPieces) {
  const TempDir dir;
  write_text(dir / "vocab.txt", "[PAD]\r\n[UNK]\nHello\n##ing\nwalk\n");
  write_text(dir / "tokenizer_config.json", R"({"do_lower_case": false, "strip_accents": true, "x": 1})");
  const Vocabulary given = tokenized(dir.path(), {"walk", "##ing", "nowhere", "Hello"});
  EXPECT_EQ(parts_of(given).at("words"), "nowhere\n");
  const Vocabulary back = there_and_back(given);
  std::vector<std::string_view> words;
  back.tokenizer->splitter()->split("walking Hello hello", words);
  EXPECT_THAT(words, ElementsAre("walk", "##ing", "Hello", "<unk>"));
  EXPECT_THAT(error_of_parts(parts_of(given), "tokenizer_config.json", "{"), HasSubstr("file/tokenizer_config.json"));
  EXPECT_THAT(error_of_parts(parts_of(given), "vocab.txt", "a\nb\n"), HasSubstr("file/vocab.txt has no piece [UNK]"));
}

TEST(StoredVocabulary, TokenizerJsonAsItIs) {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  const auto ids = nlohmann::json::parse(read_text(dir / "encoder.json"));
  nlohmann::json json{{"model", {{"type", "BPE"}, {"vocab", ids}, {"merges", {"l o", "lo w", "e r", "w e"}}}},
                      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", true}}},
                      {"decoder", {{"type", "ByteLevel"}}}};
  for (const char* token : {"\xc4\xa0low", "\xc4\xa0lower"}) json["model"]["vocab"].erase(token);
  json["added_tokens"] = {{{"id", ids.at("<|endoftext|>")}, {"content", "<|endoftext|>"}, {"special", true}}};
  std::filesystem::remove(dir / "encoder.json");
  write_text(dir / "tokenizer.json", json.dump());
  const Vocabulary given = tokenized(dir.path(), {"256"});
  EXPECT_EQ(parts_of(given).at("tokenizer.json"), json.dump());
  const Vocabulary back = there_and_back(given);
  std::vector<std::string_view> due, found;
  given.tokenizer->splitter()->split("low we", due);
  back.tokenizer->splitter()->split("low we", found);
  EXPECT_EQ(found, due);
}

TEST(StoredVocabulary, Gpt2IsSmall) {
  QN_DATA_OR_SKIP(folder, "gpt2-bpe");
  const Vocabulary given{open_tokenizer(folder), Dictionary::load(folder / "dict.txt"), {}};
  expect_same_pairs(given, there_and_back(given));
  size_t bytes = 0;
  for (const auto& [name, text] : parts_of(given)) bytes += compress_bytes(text).size();
  EXPECT_LT(bytes, 275'000u);  // of 2,102,041 in three files
}

}  // namespace
}  // namespace qn::test
