#include "core/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using namespace std::string_literals;

std::string wide(const std::string& text, size_t bytes, bool big) {
  std::string result;
  for (const char c : text) {
    std::string unit(bytes, '\0');
    unit[big ? bytes - 1 : 0] = c;
    result += unit;
  }
  return result;
}

TEST(FileKind, IsToldByTheFirstBytes) {
  const std::string words = "Some words of a text\nand more";
  const std::pair<std::string, FileKind> kCases[] = {
      {"", FileKind::empty},
      {"quantnoise-checkpoint    1\n", FileKind::checkpoint},
      {"\x89HDF\r\n\x1a\n"s, FileKind::hdf5},
      {std::string(2048, 'x') + "\x89HDF\r\n\x1a\n"s, FileKind::hdf5},
      {"\x40\0\0\0\0\0\0\0{\"a\""s, FileKind::safetensors},
      {"MMIDIDX\0\0\1"s, FileKind::token_index},
      {"QNIMAGES\1\0\0\0"s, FileKind::images},
      {"\x1f\x8b\x08\0"s, FileKind::gzip},
      {"\x28\xb5\x2f\xfd\x24"s, FileKind::zstd},
      {"BZh91AY&SY", FileKind::bzip2},
      {"BZh is a word", FileKind::text},
      {"\xfd\x37zXZ\0"s, FileKind::xz},
      {"PK\x03\x04"s, FileKind::zip},
      {"\x80\x02\x8a\x0a"s, FileKind::pickle},
      {"version https://git-lfs.github.com/spec/v1\n", FileKind::git_lfs},
      {"\xff\xfe" + wide(words, 2, false), FileKind::utf16},
      {wide(words, 2, false), FileKind::utf16},
      {wide(words, 2, true), FileKind::utf16_big},
      {"\xff\xfe\0\0"s + wide(words, 4, false), FileKind::utf32},
      {wide(words, 4, false), FileKind::utf32},
      {wide(words, 4, true), FileKind::utf32_big},
      {words, FileKind::text},
      {"\xef\xbb\xbf" + words, FileKind::text},
      {"na\xc3\xafve", FileKind::text},
      {"\1\2\0\3\4\5\6\7\x08"s, FileKind::binary},
  };
  for (const auto& [head, kind] : kCases) EXPECT_EQ(description(kind_of(head)), description(kind)) << head;
}

TEST(FileKind, BinarizedTextIsToldByItsIndex) {
  const TempDir dir;
  std::ofstream(dir / "train.bin") << wide("ids of words", 2, false);
  EXPECT_EQ(kind_of_file(dir / "train.bin"), FileKind::utf16);
  std::ofstream(dir / "train.idx") << "MMIDIDX\0\0\1"s;
  std::ofstream(dir / "train.txt") << "a text";
  EXPECT_EQ(kind_of_file(dir / "train.bin"), FileKind::token_stream);
  EXPECT_EQ(kind_of_file(dir / "train.txt"), FileKind::text);
  EXPECT_THAT([&] { read_text_file(dir / "train.bin"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("it is binarized text")));
}

TEST(FileKind, OfFilesAndFolders) {
  const TempDir dir;
  EXPECT_EQ(kind_of_file(dir.path()), FileKind::folder);
  std::ofstream(dir / "x") << "a: 1\n";
  EXPECT_EQ(kind_of_file(dir / "x"), FileKind::text);
  EXPECT_THAT([&] { kind_of_file(dir / "none"); }, testing::ThrowsMessage<Error>(testing::HasSubstr("No such file")));
}

}  // namespace
}  // namespace qn::test
