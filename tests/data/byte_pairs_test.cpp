#include "data/byte_pairs.h"

#include <array>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/dictionary.h"
#include "data/split_lines.h"
#include "data_test_util.h"
#include "sha256.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class TinyPairs : public testing::Test {
 protected:
  TinyPairs() { write_tiny_pairs(dir_.path()); }
  std::vector<int32_t> encode(const std::string& text) {
    std::vector<int32_t> ids;
    BytePairs::Encoder(pairs_).encode(text, ids);
    EXPECT_EQ(pairs_.decode(ids), text);
    return ids;
  }
  std::string opening_error(const std::string& encoder, const std::string& merges) {
    write_text(dir_ / "encoder.json", encoder);
    write_text(dir_ / "vocab.bpe", merges);
    return error_of([&] { open_tokenizer(dir_.path()); });
  }
  int32_t id(const std::string& token) { return pairs_.find(token).value(); }

  TempDir dir_;
  BytePairs pairs_{(write_tiny_pairs(dir_.path()), dir_ / "encoder.json"), dir_ / "vocab.bpe"};
};

TEST_F(TinyPairs, BytesHaveTheNumbersOfGpt2) {
  // By hand: '!' is the first printable character, '~' the 94th; then 0xa1; blanks come behind all printable ones.
  EXPECT_THAT(encode("!~"), ElementsAre(0, 93));
  EXPECT_THAT(encode("\n"), ElementsAre(188 + 10));
  EXPECT_EQ(pairs_.find("\xc4\xa0"), 188 + 32);  // U+0120 is the blank
  EXPECT_THAT(encode("\xc2\xa1"), ElementsAre(94 + 12 + 0xc2 - 0xae, 94));
}

TEST_F(TinyPairs, MergesInTheOrderOfTheList) {
  // Merges: "l o", "lo w", "e r", "Ġ low", "Ġlow er", "w e".
  EXPECT_THAT(encode("low"), ElementsAre(id("low")));
  EXPECT_THAT(encode(" lower"), ElementsAre(id("\xc4\xa0lower")));
  EXPECT_THAT(encode("lower"), ElementsAre(id("low"), id("er")));  // "e r" and "lo w" come before "w e"
  EXPECT_THAT(encode("wel"), ElementsAre(id("we"), id("l")));
  EXPECT_THAT(encode("lolo"), ElementsAre(id("lo"), id("lo")));
  EXPECT_THAT(encode("lllo"), ElementsAre(id("l"), id("l"), id("lo")));
}

TEST_F(TinyPairs, WordsAreCutAsByTheExpression) {
  const auto words = [&](const std::string& text) {
    // Without merges across words, every word begins where two tokens that would merge do not.
    return encode(text).size();
  };
  EXPECT_EQ(words("low low"), 2u);          // "low", " low"
  EXPECT_EQ(words("low  low"), 3u);         // "low", " ", " low"
  EXPECT_EQ(words("low\tlow"), 3u);         // a tabulator does not go with the word
  EXPECT_EQ(words("lo1w"), 3u);             // a digit cuts "low"
  EXPECT_EQ(words("lo'low"), 3u);           // so does a sign
  EXPECT_EQ(words("lo\xc2\xa0w"), 4u);      // and a no-break space, of two bytes
  EXPECT_EQ(words("lo\xe1\xa0\x8ew"), 5u);  // U+180E is no white space, but no letter either
}

TEST_F(TinyPairs, AnyTextAndItsLength) {
  EXPECT_TRUE(encode("").empty());
  EXPECT_THAT(encode("\xf0\x9f\xa6\x99"), testing::SizeIs(4));
  const std::string blanks(1 << 20, ' '), letters(1 << 20, 'l');
  EXPECT_EQ(encode(blanks).size(), blanks.size());
  EXPECT_EQ(encode(letters).size(), letters.size());
  std::string many;
  for (int i = 0; i < 1 << 18; ++i) many += "low";
  EXPECT_EQ(encode(many).size(), size_t{1} << 18);
  std::vector<int32_t> ids;
  BytePairs::Encoder encoder(pairs_);
  EXPECT_THAT(error_of([&] { encoder.encode("ab\xff", ids); }), AllOf(HasSubstr("byte 3"), HasSubstr("UTF-8")));
}

TEST_F(TinyPairs, WordsOfTheDictionaryAreGpt2Numbers) {
  std::vector<std::string_view> words;
  BytePairs::Encoder(pairs_).split(" lower!", words);
  EXPECT_THAT(words, ElementsAre("260", "0"));
  EXPECT_EQ(pairs_.join(words), " lower!");
  EXPECT_TRUE(pairs_.begins_word("260"));
  EXPECT_FALSE(pairs_.begins_word("0"));
  EXPECT_TRUE(pairs_.contains("261"));
  EXPECT_FALSE(pairs_.contains("263"));
}

TEST_F(TinyPairs, HuggingFacesRobertaGivesTheSameWords) {
  // The same tokens, numbered as RoBERTa's vocab.json does: specials first, then in any order.
  nlohmann::json vocabulary{{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}};
  const auto given = nlohmann::json::parse(read_text(dir_ / "encoder.json"));
  const auto last = static_cast<int>(given.size()) + 3;
  for (const auto& [token, number] : given.items()) vocabulary[token] = last - number.get<int>();
  vocabulary["<mask>"] = last + 1;
  const TempDir other;
  write_text(other / "vocab.json", vocabulary.dump());
  write_text(other / "merges.txt", read_text(dir_ / "vocab.bpe"));
  const auto roberta = open_tokenizer(other.path());
  std::vector<std::string_view> ours, theirs;
  for (const char* text : {" lower we\xc3\xa9 ", "12<|endoftext|>"}) {
    BytePairs::Encoder(pairs_).split(text, ours);
    roberta->splitter()->split(text, theirs);
  }
  EXPECT_EQ(ours, theirs);
  EXPECT_TRUE(roberta->contains("<mask>"));
  EXPECT_TRUE(roberta->contains("262"));  // <|endoftext|>
}

TEST_F(TinyPairs, DamagedFilesAreNamed) {
  const std::string encoder = read_text(dir_ / "encoder.json"), merges = read_text(dir_ / "vocab.bpe");
  EXPECT_THAT(opening_error(encoder.substr(0, 100), merges), AllOf(HasSubstr("encoder.json"), HasSubstr("no JSON")));
  EXPECT_THAT(opening_error("[1]", merges), HasSubstr("no vocabulary"));
  EXPECT_THAT(opening_error("{\"!\": 0}", merges), HasSubstr("for the byte 0x00: it is no byte-level"));
  EXPECT_THAT(opening_error("{\"!\": 4000000000}", merges), HasSubstr("the id of '!'"));
  EXPECT_THAT(opening_error("{\"!\": 1000}", merges), HasSubstr("ids up to 1000"));
  EXPECT_THAT(opening_error("{\"!\": 1, \"a\": 1}", merges), HasSubstr("the id 1"));
  EXPECT_THAT(opening_error(encoder, merges + "low\n"), AllOf(HasSubstr("vocab.bpe:8"), HasSubstr("'low'")));
  EXPECT_THAT(opening_error(encoder, merges + "l o\n"), HasSubstr("twice"));
  EXPECT_THAT(opening_error(encoder, merges + "o o\n"), AllOf(HasSubstr("'oo'"), HasSubstr("belong together")));
  // Cut at the end of a line, or empty: tokens are left that nothing makes.
  EXPECT_THAT(opening_error(encoder, merges.substr(0, merges.rfind("w e"))),
              AllOf(HasSubstr("vocab.bpe has 5 merges"), HasSubstr("'we' or 0 other"), HasSubstr("cut short")));
  EXPECT_THAT(opening_error(encoder, ""), AllOf(HasSubstr("vocab.bpe has 0 merges"), HasSubstr("'lo' or 5 other")));
  std::filesystem::remove(dir_ / "vocab.bpe");
  EXPECT_THAT(error_of([&] { open_tokenizer(dir_.path()); }), HasSubstr("encoder.json and vocab.bpe"));
  EXPECT_THAT(error_of([&] { open_tokenizer(dir_ / "none"); }), HasSubstr("no such folder"));
  EXPECT_THAT(error_of([&] { open_tokenizer(dir_ / "encoder.json"); }),
              AllOf(HasSubstr("is a file"), HasSubstr("name the folder"), HasSubstr(dir_.path().string() + ")")));
}

TEST_F(TinyPairs, LinesAreSplitInParallelAndInOrder) {
  std::string text;
  for (int i = 0; i < 400000; ++i) text += i % 3 == 0 ? "low lower\n" : i % 3 == 1 ? "\r\n" : " we!\r";
  text += "lo";
  size_t lines = 0, words = 0;
  split_lines(text, pairs_, [&](std::span<const std::string_view> line) {
    const size_t expected = lines == 400000 ? 1 : lines % 3 == 0 ? 2 : lines % 3 == 1 ? 0 : 2;
    ASSERT_EQ(line.size(), expected) << lines;
    ++lines;
    words += line.size();
  });
  EXPECT_EQ(lines, 400001u);
}

/// The blocks of a file of llama.cpp's tests, which are separated by a line.
std::vector<std::string> blocks(const std::filesystem::path& path) {
  const std::string text = read_text(path), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> all;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    all.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
    if (end == std::string::npos) return all;
    begin = end + separator.size();
  }
}

std::vector<std::vector<int32_t>> id_lines(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<std::vector<int32_t>> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::istringstream numbers(text.substr(begin, end - begin));
    lines.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
    begin = end + 1;
  }
  return lines;  // the last one is of the empty text behind the last separator
}

TEST(RealPairs, VectorsOfGpt2AndRoberta) {
  QN_DATA_OR_SKIP(folder, "gpt2-bpe");
  const BytePairs pairs(folder / "encoder.json", folder / "vocab.bpe");
  const Dictionary dictionary = Dictionary::load(folder / "dict.txt");
  const auto texts = blocks(folder / "ggml-vocab-gpt-2.gguf.inp");
  const auto gpt2 = id_lines(folder / "ggml-vocab-gpt-2.gguf.out");
  const auto roberta = id_lines(folder / "ggml-vocab-roberta-bpe.gguf.out");
  ASSERT_GE(texts.size(), 46u);
  ASSERT_EQ(gpt2.size(), texts.size());
  ASSERT_EQ(roberta.size(), texts.size());
  BytePairs::Encoder encoder(pairs);
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE(texts[i]);
    std::vector<int32_t> ids, dictionary_ids;
    encoder.encode(texts[i], ids);
    EXPECT_EQ(ids, gpt2[i]);
    EXPECT_EQ(pairs.decode(ids), texts[i]);
    std::vector<std::string_view> words;
    encoder.split(texts[i], words);
    for (const std::string_view word : words) dictionary_ids.push_back(dictionary.index(word));
    EXPECT_EQ(dictionary_ids, roberta[i]);
    EXPECT_EQ(pairs.join(words), texts[i]);
  }
}

TEST(RealPairs, WholeFiles) {
  QN_DATA_OR_SKIP(folder, "gpt2-bpe");
  const BytePairs pairs(folder / "encoder.json", folder / "vocab.bpe");
  const auto golden = nlohmann::json::parse(read_text(folder / "golden_token_counts.json"));
  int checked = 0;
  for (const auto& [name, expected] : golden.items()) {
    const auto file = shared_data(name);
    if (!file) continue;
    SCOPED_TRACE(name);
    std::vector<int32_t> ids;
    BytePairs::Encoder(pairs).encode(read_text(*file), ids);
    EXPECT_EQ(std::ssize(ids), expected["n_tokens"].get<int64_t>());
    const auto first = expected["first32"].get<std::vector<int32_t>>(),
               last = expected["last8"].get<std::vector<int32_t>>();
    EXPECT_TRUE(std::equal(first.begin(), first.end(), ids.begin()));
    EXPECT_TRUE(std::equal(last.rbegin(), last.rend(), ids.rbegin()));
    const std::vector<uint16_t> raw(ids.begin(), ids.end());
    EXPECT_EQ(sha256({reinterpret_cast<const char*>(raw.data()), raw.size() * 2}),
              expected["sha256_uint16le"].get<std::string>());
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace qn::test
