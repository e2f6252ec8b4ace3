#include "data/token_stream.h"

#include <numeric>

#include "data/split_checksum.h"
#include "data_test_util.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// The bytes of an .idx file as fairseq's MMapIndexedDataset writes them.
std::string index_bytes(uint8_t code, int64_t element_bytes, const std::vector<int32_t>& sizes, uint64_t version = 1) {
  std::string out("MMIDIDX\0\0", 9);
  append(out, version);
  append(out, code);
  append(out, static_cast<uint64_t>(sizes.size()));
  for (const int32_t size : sizes) append(out, size);
  int64_t offset = 0;
  for (const int32_t size : sizes) {
    append(out, offset);
    offset += size * element_bytes;
  }
  return out;
}

std::vector<int32_t> all_tokens(const TokenStream& stream) {
  std::vector<int32_t> tokens(static_cast<size_t>(stream.total_tokens()));
  stream.tokens(0, stream.total_tokens(), tokens.data());
  return tokens;
}

TEST(TokenStream, WritesTheReferenceFormat) {
  const TempDir dir;
  const std::vector<int32_t> sentences = {3, 1, 2};
  for (const int64_t vocabulary : {65499, 65500}) {
    write_token_stream(dir / "train", vocabulary, [&](TokenStreamWriter& writer) {
      for (const int32_t id : {10, 65498, 2}) writer.add_token(id);
      writer.end_sentence();
      writer.add_token(2);
      writer.end_sentence();
      for (const int32_t id : {11, 2}) writer.add_token(id);
      writer.end_sentence();
      EXPECT_EQ(writer.tokens(), 6);
      EXPECT_EQ(writer.sentences(), 3);
    });
    std::string data;
    for (const uint16_t id : {10, 65498, 2, 2, 11, 2}) {
      if (vocabulary < 65500) {
        append(data, id);
      } else {
        append(data, uint32_t{id});
      }
    }
    EXPECT_EQ(read_text(dir / "train.bin"), data);
    EXPECT_EQ(read_text(dir / "train.idx"),
              vocabulary < 65500 ? index_bytes(8, 2, sentences) : index_bytes(9, 4, sentences));
    const TokenStream stream = TokenStream::open(dir.path(), "train");
    EXPECT_EQ(stream.sentence_sizes(), sentences);
    EXPECT_EQ(all_tokens(stream), (std::vector<int32_t>{10, 65498, 2, 2, 11, 2}));
  }
}

TEST(TokenStream, BuffersManyTokens) {
  const TempDir dir;
  constexpr int kSentences = 3000, kLength = 50;  // more than two write buffers
  write_token_stream(dir / "t", 70000, [&](TokenStreamWriter& writer) {
    for (int i = 0; i < kSentences; ++i) {
      for (int j = 0; j < kLength; ++j) writer.add_token((i * kLength + j) % 70000);
      writer.end_sentence();
    }
  });
  const TokenStream stream(dir / "t");
  ASSERT_EQ(stream.total_tokens(), kSentences * kLength);
  const std::vector<int32_t> tokens = all_tokens(stream);
  for (int i = 0; i < kSentences * kLength; ++i) ASSERT_EQ(tokens[static_cast<size_t>(i)], i % 70000);
}

template <typename T>
void check_type(uint8_t code) {
  const TempDir dir;
  std::string data;
  for (const int id : {5, 100, 2, 2}) append(data, static_cast<T>(id));
  write_text(dir / "t.bin", data);
  write_text(dir / "t.idx", index_bytes(code, sizeof(T), {3, 1}));
  const TokenStream stream(dir / "t");
  EXPECT_EQ(all_tokens(stream), (std::vector<int32_t>{5, 100, 2, 2})) << int{code};
  EXPECT_EQ(stream.token(1), 100);
  stream.check_vocabulary(101);
  EXPECT_THAT(error_of([&] { stream.check_vocabulary(100); }),
              AllOf(HasSubstr("token id 100"), HasSubstr("100 entries")));
}

TEST(TokenStream, ReadsEveryElementType) {
  check_type<uint8_t>(1);
  check_type<int8_t>(2);
  check_type<int16_t>(3);
  check_type<int32_t>(4);
  check_type<int64_t>(5);
  check_type<uint16_t>(8);
  check_type<uint32_t>(9);
  check_type<uint64_t>(10);
}

TEST(TokenStream, NegativeIdsAreOutsideAnyVocabulary) {
  const TempDir dir;
  std::string data;
  append(data, int32_t{7});
  append(data, int32_t{-1});
  write_text(dir / "t.bin", data);
  write_text(dir / "t.idx", index_bytes(4, 4, {2}));
  EXPECT_THAT(error_of([&] { TokenStream(dir / "t").check_vocabulary(100); }), HasSubstr("token id -1 at position 1"));
}

TEST(TokenStream, CountsEveryId) {
  const TempDir dir;
  const std::vector<int64_t> sizes = {4, 2}, tokens = {4, 5, 4, 2, 4, 2};
  EXPECT_EQ(make_stream(dir / "t", sizes, tokens).counts(7), (std::vector<int64_t>{0, 0, 2, 0, 3, 1, 0}));
}

TEST(TokenStream, SentenceStarts) {
  const TempDir dir;
  const std::vector<int64_t> sizes = {3, 1, 0, 4, 2};
  const std::vector<int64_t> tokens(10, 7);
  const TokenStream stream = make_stream(dir / "t", sizes, tokens);
  const std::vector<bool> expected = {true, false, false, true, true, false, false, false, true, false, false};
  for (int64_t i = 0; i <= 10; ++i) EXPECT_EQ(stream.is_sentence_start(i), expected[static_cast<size_t>(i)]) << i;
  EXPECT_EQ(stream.sentence_begin(4), 8);
  EXPECT_EQ(stream.sentence_begin(5), 10);
}

class BadStream : public testing::Test {
 protected:
  BadStream() {
    write_text(dir_ / "t.bin", std::string(8, '\1'));
    write_text(dir_ / "t.idx", index_bytes(8, 2, {3, 1}));
  }
  std::string open_error() {
    return error_of([&] { TokenStream(dir_ / "t"); });
  }
  TempDir dir_;
};

TEST_F(BadStream, IsGoodBeforeItIsDamaged) { EXPECT_EQ(open_error(), ""); }

TEST_F(BadStream, DataOfTheWrongSize) {
  write_text(dir_ / "t.bin", std::string(7, '\1'));
  EXPECT_THAT(open_error(), AllOf(HasSubstr("t.bin"), HasSubstr("truncated"), HasSubstr("prepare")));
  write_text(dir_ / "t.bin", "");
  EXPECT_THAT(open_error(), AllOf(HasSubstr("t.bin"), HasSubstr("truncated")));
  write_text(dir_ / "t.bin", std::string(10, '\1'));
  EXPECT_THAT(open_error(), AllOf(HasSubstr("t.bin"), HasSubstr("do not belong together")));
}

TEST_F(BadStream, EveryTruncationOfTheIndexIsNoticed) {
  const std::string whole = read_text(dir_ / "t.idx");
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    write_text(dir_ / "t.idx", whole.substr(0, bytes));
    EXPECT_THAT(open_error(), AllOf(HasSubstr("t.idx"), HasSubstr("prepare"))) << bytes;
  }
  write_text(dir_ / "t.idx", whole + "x");
  EXPECT_THAT(open_error(), HasSubstr("truncated or damaged"));
}

TEST_F(BadStream, DamagedHeader) {
  write_text(dir_ / "t.idx", "TNTIDX\0\0" + index_bytes(8, 2, {3, 1}));
  EXPECT_THAT(open_error(), HasSubstr("no index of a binarized text"));
  write_text(dir_ / "t.idx", index_bytes(8, 2, {3, 1}, 2));
  EXPECT_THAT(open_error(), HasSubstr("version 2"));
  write_text(dir_ / "t.idx", index_bytes(7, 2, {3, 1}));
  EXPECT_THAT(open_error(), HasSubstr("floating-point"));
  for (const uint8_t code : {0, 11, 255}) {
    write_text(dir_ / "t.idx", index_bytes(code, 2, {3, 1}));
    EXPECT_THAT(open_error(), HasSubstr("unknown type code"));
  }
}

TEST_F(BadStream, DamagedSizesAndOffsets) {
  write_text(dir_ / "t.idx", index_bytes(8, 2, {5, -1}));
  EXPECT_THAT(open_error(), HasSubstr("damaged at sentence 1"));
  std::string index = index_bytes(8, 2, {3, 1});
  index[index.size() - 8] = 4;  // second offset
  write_text(dir_ / "t.idx", index);
  EXPECT_THAT(open_error(), HasSubstr("damaged at sentence 1"));
}

TEST_F(BadStream, IndicesOfMegatronAreNamed) {
  const std::string index = index_bytes(8, 2, {3, 1});
  constexpr size_t kHeader = 9 + 8 + 1 + 8;
  std::string documents(8, '\0'), begins(24, '\0');
  documents[0] = 3;
  for (const std::string& modes : {std::string(), std::string(2, '\0')}) {
    write_text(dir_ / "t.idx", index.substr(0, kHeader) + documents + index.substr(kHeader) + begins + modes);
    EXPECT_THAT(open_error(), AllOf(HasSubstr("t.idx is an index of Megatron-LM"), HasSubstr("prepare")));
  }
}

TEST_F(BadStream, IsOtherThanItWasPrepared) {
  Dictionary dictionary;
  for (const char* word : {"a", "b", "c"}) dictionary.add(word);
  const auto verify_error = [&] { return error_of([&] { TokenStream(dir_ / "t").verify(dictionary); }); };
  write_split_checksum(dir_ / "t", dictionary.hash());
  EXPECT_EQ(verify_error(), "");
  const std::string bin = read_text(dir_ / "t.bin"), idx = read_text(dir_ / "t.idx"), sum = read_text(dir_ / "t.sum");
  std::string other = bin;
  other[2] ^= 1;
  write_text(dir_ / "t.bin", other);
  EXPECT_THAT(verify_error(), AllOf(HasSubstr("t.bin is not as it was prepared"), HasSubstr("t.sum")));
  write_text(dir_ / "t.bin", bin);
  write_text(dir_ / "t.idx", index_bytes(8, 2, {2, 2}));
  EXPECT_THAT(verify_error(), HasSubstr("t.idx is not as it was prepared"));
  write_text(dir_ / "t.idx", idx);
  for (size_t i = 0; i < sum.size(); ++i) {
    std::string damaged = sum;
    damaged[i] ^= 1;
    write_text(dir_ / "t.sum", damaged);
    EXPECT_NE(verify_error(), "") << i;
  }
  write_text(dir_ / "t.sum", sum);
  dictionary.add("d");
  EXPECT_THAT(verify_error(), AllOf(HasSubstr("prepared with another dictionary"), HasSubstr("--dict")));
}

TEST_F(BadStream, VerifyTellsContentsApart) {
  const Dictionary dictionary;
  const auto checksum = [&] { return TokenStream(dir_ / "t").verify(dictionary); };
  write_text(dir_ / "t.bin", std::string("\2\0\2\0\2\0\2\0", 8));
  const uint64_t before = checksum();
  EXPECT_EQ(checksum(), before);
  write_text(dir_ / "t.idx", index_bytes(8, 2, {2, 2}));
  EXPECT_NE(checksum(), before);
  write_text(dir_ / "t.idx", index_bytes(8, 2, {3, 1}));
  write_text(dir_ / "t.bin", std::string("\3\0\2\0\2\0\2\0", 8));
  EXPECT_NE(checksum(), before);
}

TEST_F(BadStream, MissingFiles) {
  EXPECT_THAT(error_of([&] { TokenStream::open(dir_.path(), "valid"); }),
              AllOf(HasSubstr("'valid'"), HasSubstr("has: t")));
  EXPECT_THAT(error_of([&] { TokenStream::open(dir_ / "none", "valid"); }), HasSubstr("no such data directory"));
  std::filesystem::remove(dir_ / "t.bin");
  EXPECT_THAT(open_error(), HasSubstr("t.bin"));
  std::filesystem::remove(dir_ / "t.idx");
  EXPECT_THAT(error_of([&] { TokenStream::open(dir_.path(), "t"); }), HasSubstr("holds no prepared data"));
}

TEST(TokenStreamWriter, NothingAppearsAfterAnError) {
  const TempDir dir;
  EXPECT_EQ(error_of([&] {
              write_token_stream(dir / "t", 10, [](TokenStreamWriter& writer) {
                writer.add_token(1);
                fail("stop");
              });
            }),
            "stop");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_THAT(error_of([&] { write_token_stream(dir / "none" / "t", 10, [](TokenStreamWriter&) {}); }),
              HasSubstr("none"));
}

}  // namespace
}  // namespace qn::test
