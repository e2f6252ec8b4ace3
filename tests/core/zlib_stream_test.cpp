#include "core/zlib_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr size_t kMost = 1 << 16;

auto refuses(const std::string& message) { return ThrowsMessage<Error>(HasSubstr(message)); }

TEST(ZlibStream, GivesBackWhatWentIn) {
  std::string all(256 * 200, ' ');
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i * i >> 3);
  for (const std::string& text : {std::string(), std::string("a"), std::string(1000, 'x'), all})
    EXPECT_EQ(decompress_bytes(compress_bytes(text), kMost, "it"), text);
  EXPECT_LT(compress_bytes(std::string(60000, 'x')).size(), 200u);
}

TEST(ZlibStream, RefusesWhatIsNoStreamOfItsSize) {
  const std::vector<std::byte> good = compress_bytes("some text, some text, some more text");
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_THAT([&] { decompress_bytes(std::span(good).first(size), kMost, "it"); }, refuses("it is no intact zlib"));
  std::vector<std::byte> longer = good;
  longer.push_back({});
  EXPECT_THAT([&] { decompress_bytes(longer, kMost, "it"); }, refuses("it has 1 bytes behind"));
  for (size_t i = 0; i < good.size(); ++i) {
    std::vector<std::byte> bad = good;
    bad[i] ^= std::byte{0x21};
    EXPECT_THROW(decompress_bytes(bad, kMost, "it"), Error) << i;
  }
  EXPECT_THAT([] { decompress_bytes(compress_bytes(std::string(kMost + 1, 'x')), kMost, "it"); },
              refuses("it gives more than 65536 bytes"));
  EXPECT_EQ(decompress_bytes(compress_bytes(std::string(kMost, 'x')), kMost, "it").size(), kMost);
  EXPECT_THAT([] { decompress_bytes(std::vector<std::byte>(kMost), kMost, "it"); }, refuses("which is too much"));
}

TEST(ZlibStream, ReadsGzipFiles) {
  // Python: gzip.compress(b"\0\0\x08\x01\0\0\0\x05\0\1\2\0\1", mtime=0)
  constexpr uint8_t kFile[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x63,
                               0x60, 0xe0, 0x60, 0x64, 0x60, 0x60, 0x60, 0x65, 0x60, 0x64, 0x62,
                               0x60, 0x04, 0x00, 0xd7, 0xde, 0x87, 0xc6, 0x0d, 0x00, 0x00, 0x00};
  const auto file = std::as_bytes(std::span(kFile));
  EXPECT_EQ(decompress_gzip(file, kMost, "it"), std::string("\0\0\x08\x01\0\0\0\x05\0\1\2\0\1", 13));
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_THAT([&] { decompress_gzip(file.first(size), kMost, "it"); }, refuses("it is no intact gzip file"));
}

}  // namespace
}  // namespace qn::test
