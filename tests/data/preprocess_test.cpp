#include "data/preprocess.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <thread>

#include "core/folder_lock.h"
#include "core/hdf5_file.h"
#include "data/token_stream.h"
#include "data/word_beginnings.h"
#include "data_test_util.h"
#include "sha256.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kGroup = "dictionary/wikitext2_default";

std::vector<int32_t> tokens_of(const TokenStream& stream, int64_t begin, int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  stream.tokens(begin, count, tokens.data());
  return tokens;
}

TEST(Sha256, KnownDigest) {
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/// first_id -1: the symbols are the dictionary's last ones.
void check_symbols(const Hdf5File& golden, const Dictionary& dictionary, const std::string& part, int64_t first_id) {
  const auto symbols = golden.read_strings(kGroup + "/" + part + "_symbols");
  const auto counts = golden.read<int64_t>(kGroup + "/" + part + "_counts");
  if (first_id < 0) first_id = dictionary.size() - std::ssize(symbols);
  for (size_t i = 0; i < symbols.size(); ++i) {
    const auto id = static_cast<int32_t>(first_id) + static_cast<int32_t>(i);
    EXPECT_EQ(dictionary.symbol(id), symbols[i]) << part << " " << i;
    EXPECT_EQ(dictionary.index(symbols[i]), id) << part << " " << i;
    EXPECT_EQ(dictionary.count(id), counts[i]) << part << " " << i;
  }
}

void check_split(const Hdf5File& golden, const std::filesystem::path& directory, const SplitSummary& summary) {
  SCOPED_TRACE(summary.name);
  const std::string group = kGroup + "/" + summary.name;
  ASSERT_EQ(sha256(read_text(summary.source)), golden.string_attribute(group, "text_sha256")) << "another text";
  const TokenStream stream = TokenStream::open(directory, summary.name);
  EXPECT_EQ(stream.sentences(), golden.int_attribute(group, "sentences"));
  EXPECT_EQ(stream.total_tokens(), golden.int_attribute(group, "tokens"));
  EXPECT_EQ(summary.sentences, stream.sentences());
  EXPECT_EQ(summary.tokens, stream.total_tokens());
  EXPECT_EQ(summary.unknown, golden.int_attribute(group, "unk"));

  const std::vector<int32_t>& sizes = stream.sentence_sizes();
  EXPECT_EQ(std::count(sizes.begin(), sizes.end(), 1), golden.int_attribute(group, "blank_lines"));
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), golden.int_attribute(group, "longest_sentence"));
  const auto first_sizes = golden.read<int32_t>(group + "/first_sizes");
  EXPECT_TRUE(std::equal(first_sizes.begin(), first_sizes.end(), sizes.begin()));

  const std::vector<int32_t> ids = tokens_of(stream, 0, stream.total_tokens());
  const auto first = golden.read<int32_t>(group + "/first_ids"), last = golden.read<int32_t>(group + "/last_ids");
  EXPECT_TRUE(std::equal(first.begin(), first.end(), ids.begin()));
  EXPECT_TRUE(std::equal(last.rbegin(), last.rend(), ids.rbegin()));
  EXPECT_EQ(std::accumulate(ids.begin(), ids.end(), int64_t{0}), golden.int_attribute(group, "sum_of_ids"));
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kEosId), golden.int_attribute(group, "eos"));
  // The stream is stored as 16-bit ids: the file is what the reference digest was taken of.
  EXPECT_EQ(sha256(read_text(directory / (summary.name + ".bin"))), golden.string_attribute(group, "ids_u16le_sha256"));
}

TEST(Prepare, WikiText2EqualsTheReference) {
  QN_GOLDEN(golden_path, "data.h5");
  QN_DATA_OR_SKIP(text, "wikitext-2");
  const TempDir dir;
  PrepareOptions options;
  options.train = text / "train.txt";
  options.valid = {text / "valid.txt"};
  options.test = {text / "test.txt"};
  options.destdir = dir / "data";
  const PrepareSummary summary = prepare(options);
  const Hdf5File golden(golden_path, Hdf5File::Mode::read);

  EXPECT_EQ(summary.types, golden.int_attribute(kGroup, "size"));
  const std::string dict = read_text(options.destdir / "dict.txt");
  EXPECT_EQ(std::count(dict.begin(), dict.end(), '\n'), golden.int_attribute(kGroup, "dict_txt_lines"));
  EXPECT_EQ(sha256(dict), golden.string_attribute(kGroup, "dict_txt_sha256"));
  const Dictionary dictionary = Dictionary::load(options.destdir / "dict.txt");
  EXPECT_EQ(dictionary.size(), summary.types);
  EXPECT_EQ(dictionary.hash(), summary.dictionary_hash);
  check_symbols(golden, dictionary, "first", 0);
  check_symbols(golden, dictionary, "middle", golden.int_attribute(kGroup, "middle_first_id"));
  check_symbols(golden, dictionary, "last", -1);
  const auto words = golden.read_strings(kGroup + "/non_ascii_symbols");
  const auto ids = golden.read<int32_t>(kGroup + "/non_ascii_ids");
  for (size_t i = 0; i < words.size(); ++i) EXPECT_EQ(dictionary.index(words[i]), ids[i]);

  ASSERT_EQ(summary.splits.size(), 3u);
  for (const SplitSummary& split : summary.splits) check_split(golden, options.destdir, split);
}

class SmallPrepare : public testing::Test {
 protected:
  SmallPrepare() {
    write_text(dir_ / "train.txt", "b a b\n\n  b <unk> a\tc \r\n");
    write_text(dir_ / "valid.txt", "a zz <unk>\nb");
    options_.train = dir_ / "train.txt";
    options_.valid = {dir_ / "valid.txt"};
    options_.destdir = dir_ / "new" / "data";
  }
  std::string prepare_error() {
    return error_of([&] { prepare(options_); });
  }
  TempDir dir_;
  PrepareOptions options_;
};

TEST_F(SmallPrepare, WritesWhatTheTextSays) {
  const PrepareSummary summary = prepare(options_);
  EXPECT_EQ(summary.types, 8);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "b 3\na 2\nc 1\nmadeupword0000 0\n");
  const TokenStream train = TokenStream::open(options_.destdir, "train");
  EXPECT_EQ(train.sentence_sizes(), (std::vector<int32_t>{4, 1, 5}));
  EXPECT_EQ(tokens_of(train, 0, 10), (std::vector<int32_t>{4, 5, 4, 2, 2, 4, 3, 5, 6, 2}));
  const TokenStream valid = TokenStream::open(options_.destdir, "valid");
  EXPECT_EQ(tokens_of(valid, 0, 6), (std::vector<int32_t>{5, 3, 3, 2, 4, 2}));
  const SplitSummary& split = summary.splits[1];
  EXPECT_EQ(split.name, "valid");
  EXPECT_EQ(split.sentences, 2);
  EXPECT_EQ(split.tokens, 6);
  EXPECT_EQ(split.unknown, 2);
  EXPECT_EQ(split.replaced, 1);
  EXPECT_DOUBLE_EQ(split.unknown_share(), 2.0 / 6);
}

TEST_F(SmallPrepare, PaddingInTheTextIsUnknown) {
  write_text(dir_ / "valid.txt", "a <pad> <pad> b\n<s> </s> <unk>\n");
  const PrepareSummary summary = prepare(options_);
  const TokenStream valid = TokenStream::open(options_.destdir, "valid");
  EXPECT_EQ(tokens_of(valid, 0, 9),
            (std::vector<int32_t>{5, kUnkId, kUnkId, 4, kEosId, kBosId, kEosId, kUnkId, kEosId}));
  EXPECT_EQ(summary.splits[1].specials, (std::array<int64_t, 3>{1, 2, 1}));
  EXPECT_EQ(summary.splits[1].unknown, 3);
  EXPECT_EQ(summary.splits[1].replaced, 2);
}

TEST_F(SmallPrepare, ChangedCountsAreNoticed) {
  prepare(options_);
  const std::filesystem::path dict = options_.destdir / "dict.txt";
  const std::string text = read_text(dict);
  const auto load = [&] {
    const LogCapture log;
    const uint64_t hash = Dictionary::load(dict).hash();
    return std::pair(hash, log.text());
  };
  const auto [hash, quiet] = load();
  EXPECT_EQ(quiet, "");
  std::string changed = text;
  changed.replace(changed.find("b 3"), 3, "b 7");
  write_text(dict, changed);
  const auto [same, warning] = load();
  EXPECT_EQ(same, hash) << "words are what counts";
  EXPECT_THAT(warning, AllOf(HasSubstr("dict.txt is not as it was prepared"), HasSubstr("dict.sum")));
  prepare(options_);
  EXPECT_EQ(load().second, "");
  std::filesystem::remove(options_.destdir / "dict.sum");  // as an older program leaves it
  write_text(dict, changed);
  EXPECT_EQ(load().second, "");
}

TEST_F(SmallPrepare, TextsThroughPipes) {
  prepare(options_);
  const std::string dict = read_text(options_.destdir / "dict.txt"), bin = read_text(options_.destdir / "train.bin");
  const std::string text = read_text(options_.train);
  options_.train = dir_ / "pipe";
  options_.destdir = dir_ / "piped";
  ASSERT_EQ(mkfifo(options_.train.c_str(), 0666), 0);
  std::thread writer([&] { write_text(options_.train, text); });
  prepare(options_);
  writer.join();
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), dict);
  EXPECT_EQ(read_text(options_.destdir / "train.bin"), bin);
  std::thread nothing([&] { write_text(options_.train, ""); });
  EXPECT_THAT(prepare_error(), HasSubstr("the pipe is empty"));
  nothing.join();
}

TEST_F(SmallPrepare, WhatIsNoTextIsNamed) {
  const auto expect = [&](const std::string& content, const char* what, const char* command) {
    write_text(dir_ / "valid.txt", content);
    EXPECT_THAT(prepare_error(), AllOf(HasSubstr("valid.txt"), HasSubstr(what), HasSubstr(command)));
  };
  expect("\x1f\x8b\x08 and so on", "compressed with gzip", "gzip -dc ");
  expect("\x28\xb5\x2f\xfd and so on", "compressed with zstd", "zstd -dc ");
  expect("PK\x03\x04 and so on", "a zip archive", "unzip -p ");
  expect(std::string("\xff\xfe"
                     "a\0 \0b\0\n\0",
                     10),
         "text in UTF-16", "iconv -f UTF-16 -t UTF-8");
  expect(std::string("a\0 \0b\0\n\0", 8), "text in UTF-16", "iconv -f UTF-16 -t UTF-8");
  expect(std::string("a word\nand a\0 zero\n", 20), "valid.txt:2: byte 0x00 at position 6", "no text");
  options_.srcdict = dir_ / "valid.txt";
  EXPECT_THAT(prepare_error(), HasSubstr("valid.txt:2: byte 0x00"));
}

TEST_F(SmallPrepare, AByteOrderMarkIsNoPartOfAWord) {
  write_text(dir_ / "train.txt", "\xef\xbb\xbf" + read_text(dir_ / "train.txt"));
  prepare(options_);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "b 3\na 2\nc 1\nmadeupword0000 0\n");
  write_text(dir_ / "given.txt",
             "\xef\xbb\xbf"
             "b 9\r\na 8\r\n");
  options_.srcdict = dir_ / "given.txt";
  prepare(options_);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "b 9\na 8\n");
}

TEST_F(SmallPrepare, SplitsOfAnotherDictionaryDoNotStay) {
  options_.test = {dir_ / "valid.txt"};
  prepare(options_);
  const std::string dict = read_text(options_.destdir / "dict.txt");
  write_text(dir_ / "train.txt", "quite different now\n");
  options_.test.clear();
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("another dictionary: test."), HasSubstr("another folder")));
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), dict);
  std::filesystem::remove(options_.destdir / "test.sum");  // as fairseq or an older program leaves it
  EXPECT_THAT(prepare_error(), HasSubstr("another dictionary: test."));
  std::filesystem::remove(options_.destdir / "test.idx");
  EXPECT_EQ(prepare_error(), "");
  // One more split with the folder's own dictionary is what people do.
  options_ = {.train = {},
              .valid = {},
              .test = {dir_ / "valid.txt"},
              .destdir = options_.destdir,
              .limits = {},
              .srcdict = options_.destdir / "dict.txt"};
  EXPECT_EQ(prepare_error(), "");
}

TEST_F(SmallPrepare, LimitsTheDictionary) {
  options_.limits = {.threshold = 2, .nwords = 5, .padding_factor = 1};
  EXPECT_EQ(prepare(options_).types, 5);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "b 3\n");
}

TEST_F(SmallPrepare, UsesAnExistingDictionary) {
  write_text(dir_ / "given.txt", "zz 9\na 8\n");
  options_.srcdict = dir_ / "given.txt";
  options_.train.clear();
  options_.valid.push_back(dir_ / "valid.txt");
  options_.test = options_.valid;
  const PrepareSummary summary = prepare(options_);
  EXPECT_EQ(summary.types, 6);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "zz 9\na 8\n");
  std::vector<std::string> names;
  for (const SplitSummary& split : summary.splits) names.push_back(split.name);
  EXPECT_EQ(names, (std::vector<std::string>{"valid", "valid1", "test", "test1"}));
  EXPECT_EQ(tokens_of(TokenStream::open(options_.destdir, "test1"), 0, 6), (std::vector<int32_t>{5, 4, 3, 2, 3, 2}));
}

TEST_F(SmallPrepare, PiecesOfATokenizer) {
  write_tiny_pairs(dir_ / "pairs");
  options_.tokenizer = open_tokenizer(dir_ / "pairs");
  write_text(dir_ / "train.txt", "low lower\n\n  lower \n");
  write_text(dir_ / "valid.txt", " low\xc3\xa9\n");
  options_.limits.padding_factor = 1;
  prepare(options_);
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), "257 2\n258 1\n260 1\n");  // blanks at the ends are left out
  EXPECT_EQ(tokens_of(TokenStream::open(options_.destdir, "train"), 0, 7), (std::vector<int32_t>{4, 6, 2, 2, 4, 5, 2}));
  EXPECT_EQ(tokens_of(TokenStream::open(options_.destdir, "valid"), 0, 4), (std::vector<int32_t>{4, 3, 3, 2}));
  EXPECT_TRUE(find_tokenizer(options_.destdir / "tokenizer")->contains("260"));
  // Special symbols, "low", "er", " lower": only the last one begins with a blank.
  EXPECT_EQ(word_beginnings(options_.destdir, Dictionary::load(options_.destdir / "dict.txt")),
            (std::vector<bool>{true, true, true, true, false, false, true}));
  // The dictionary that was made fits, also in place; one of words does not.
  options_.srcdict = options_.destdir / "dict.txt";
  options_.tokenizer = open_tokenizer(options_.destdir / "tokenizer");
  prepare(options_);
  EXPECT_TRUE(find_tokenizer(options_.destdir / "tokenizer")->contains("260"));
  options_.srcdict = dir_ / "words.txt";
  write_text(options_.srcdict, "low 2\nlower 1\n260 1\n");
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("words.txt"), HasSubstr("of its 3 words only 1")));
  // Without a tokenizer the folder has none any more.
  options_.srcdict.clear();
  options_.tokenizer = nullptr;
  prepare(options_);
  EXPECT_FALSE(std::filesystem::exists(options_.destdir / "tokenizer"));
  EXPECT_EQ(word_beginnings(options_.destdir, Dictionary()), std::vector<bool>(4, true));
}

TEST_F(SmallPrepare, BadInputLeavesThePreparedDataAlone) {
  prepare(options_);
  const std::string dict = read_text(options_.destdir / "dict.txt"), valid = read_text(options_.destdir / "valid.bin");
  write_text(dir_ / "train.txt", "quite different now\n");
  write_text(dir_ / "valid.txt", "fine\n\nna\xefve\n");
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("valid.txt:3:"), HasSubstr("UTF-8")));
  EXPECT_EQ(read_text(options_.destdir / "dict.txt"), dict);
  EXPECT_EQ(read_text(options_.destdir / "valid.bin"), valid);
  write_text(dir_ / "train.txt", "\xff\n");
  EXPECT_THAT(prepare_error(), HasSubstr("train.txt:1:"));
}

TEST_F(SmallPrepare, NoInputIsOverwritten) {
  namespace fs = std::filesystem;
  fs::create_directories(options_.destdir);
  const fs::path text = options_.destdir / "train.bin";
  fs::rename(options_.train, text);
  options_.train = options_.destdir / ".." / options_.destdir.filename() / "train.bin";
  const std::string before = read_text(text);
  EXPECT_THAT(prepare_error(),
              AllOf(HasSubstr("would be overwritten by " + text.string()), HasSubstr("another folder")));
  EXPECT_EQ(read_text(text), before);
  EXPECT_FALSE(fs::exists(options_.destdir / "dict.txt"));
  fs::rename(text, dir_ / "train.txt");
  options_.train = dir_ / "train.txt";
  ASSERT_EQ(mkfifo((options_.destdir / "valid.idx").c_str(), 0666), 0);
  EXPECT_THAT(prepare_error(), HasSubstr("valid.idx: this is a pipe; remove it"));
  EXPECT_FALSE(fs::exists(options_.destdir / "dict.txt"));
}

TEST_F(SmallPrepare, TwoAtOnceDoNotMix) {
  std::filesystem::create_directories(options_.destdir);
  const FolderLock other(options_.destdir, "the folder");
  EXPECT_THROW(prepare(options_), Error);
  EXPECT_FALSE(std::filesystem::exists(options_.destdir / "dict.txt"));
}

TEST_F(SmallPrepare, MissingEmptyAndMisplacedFiles) {
  write_text(dir_ / "valid.txt", "");
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("valid.txt"), HasSubstr("empty")));
  options_.valid = {dir_ / "none.txt"};
  EXPECT_THAT(prepare_error(), AllOf(HasSubstr("none.txt"), HasSubstr("no such file"), HasSubstr("valid")));
  options_.valid = {dir_.path()};
  EXPECT_THAT(prepare_error(), HasSubstr("is a directory"));
  options_.valid.clear();
  options_.destdir = dir_ / "train.txt";
  EXPECT_THAT(prepare_error(), HasSubstr("cannot create the directory"));
  options_.train.clear();
  EXPECT_THAT(prepare_error(), HasSubstr("no text to prepare"));
  options_.test = {dir_ / "train.txt"};
  EXPECT_THAT(prepare_error(), HasSubstr("existing dict.txt"));
}

}  // namespace
}  // namespace qn::test
