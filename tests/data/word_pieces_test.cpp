#include "data/word_pieces.h"

#include <nlohmann/json.hpp>

#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

void write_vocabulary(const std::filesystem::path& folder, const std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token + "\n";
  write_text(folder / "vocab.txt", text);
}

std::vector<int32_t> encode(const WordPieces& pieces, const std::string& text) {
  std::vector<int32_t> ids;
  WordPieces::Encoder(pieces).encode(text, ids);
  return ids;
}

/// Every combination of options, as the package `tokenizers` splits the same texts.
TEST(WordPieces, EqualTheTokenizersPackage) {
  QN_GOLDEN(path, "wordpiece.json");
  const auto golden = nlohmann::json::parse(read_text(path));
  const TempDir dir;
  write_vocabulary(dir.path(), golden["vocabulary"].get<std::vector<std::string>>());
  const std::map<std::string, WordPieceOptions> options = {{"uncased", {true, true, true}},
                                                           {"cased", {false, false, true}},
                                                           {"lower_with_accents", {true, false, true}},
                                                           {"cased_without_accents", {false, true, true}}};
  ASSERT_EQ(golden["ids"].size(), options.size());
  const auto texts = golden["texts"].get<std::vector<std::string>>();
  for (const auto& [name, expected] : golden["ids"].items()) {
    const WordPieces pieces(read_text(dir / "vocab.txt"), "vocab.txt:", options.at(name), {{"vocab.txt", ""}});
    ASSERT_EQ(expected.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i)
      EXPECT_EQ(encode(pieces, texts[i]), expected[i].get<std::vector<int32_t>>()) << name << ": " << texts[i];
  }
}

TEST(WordPieces, WordsOfTheDictionary) {
  const TempDir dir;
  write_vocabulary(dir.path(), {"[PAD]", "[UNK]", "un", "##aff", "##able", "dog", "."});
  const auto tokenizer = open_tokenizer(dir.path());
  std::vector<std::string_view> words;
  const auto splitter = tokenizer->splitter();
  splitter->split("Unaffable dog. cat", words);
  EXPECT_THAT(words, ElementsAre("un", "##aff", "##able", "dog", ".", "<unk>"));
  EXPECT_EQ(tokenizer->join(words), "unaffable dog .");
  EXPECT_TRUE(tokenizer->begins_word("un"));
  EXPECT_FALSE(tokenizer->begins_word("##aff"));
  EXPECT_TRUE(tokenizer->contains("##able"));
  EXPECT_FALSE(tokenizer->contains("able"));
  EXPECT_FALSE(tokenizer->contains("[UNK]"));
  EXPECT_EQ(tokenizer->files().size(), 1u);
}

TEST(WordPieces, OptionsComeFromTheConfiguration) {
  const TempDir dir;
  write_vocabulary(dir.path(), {"[UNK]", "\xc3\x89t\xc3\xa9", "ete", "Ete"});
  const auto id_with = [&](const std::string& config) {
    write_text(dir / "tokenizer_config.json", config);
    const auto tokenizer = open_tokenizer(dir.path());
    EXPECT_EQ(tokenizer->files().size(), 2u);
    return encode(dynamic_cast<const WordPieces&>(*tokenizer), "\xc3\x89t\xc3\xa9").at(0);
  };
  EXPECT_EQ(id_with("{}"), 2);
  EXPECT_EQ(id_with(R"({"do_lower_case": false, "strip_accents": null, "model_max_length": 512})"), 1);
  EXPECT_EQ(id_with(R"({"do_lower_case": false, "strip_accents": true})"), 3);
  EXPECT_THAT(error_of([&] { id_with(R"({"do_lower_case": "yes"})"); }),
              AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("do_lower_case"), HasSubstr("true or false")));
}

TEST(WordPieces, DamagedVocabulariesAreNamed) {
  const TempDir dir;
  const auto error = [&](const std::string& text) {
    write_text(dir / "vocab.txt", text);
    return error_of([&] { open_tokenizer(dir.path()); });
  };
  EXPECT_THAT(error("a\nb\n"), AllOf(HasSubstr("vocab.txt"), HasSubstr("[UNK]")));
  EXPECT_THAT(error("[UNK]\na\n\nb\n"), HasSubstr("vocab.txt:3"));
  EXPECT_THAT(error("[UNK]\na\na\n"), AllOf(HasSubstr("vocab.txt:3"), HasSubstr("twice")));
  write_text(dir / "vocab.txt", "[UNK]\r\na\r\n");
  EXPECT_TRUE(open_tokenizer(dir.path())->contains("a"));
  std::vector<std::string_view> words;
  EXPECT_THAT(error_of([&] { open_tokenizer(dir.path())->splitter()->split("a\xff", words); }), HasSubstr("byte 2"));
}

}  // namespace
}  // namespace qn::test
