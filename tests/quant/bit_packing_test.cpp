#include "quant/bit_packing.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"

namespace qn::test {
namespace {

class BitPacking : public testing::TestWithParam<int> {};

TEST_P(BitPacking, RoundTripOfEveryLength) {
  const int bits = GetParam();
  const RandomStream stream({5, Purpose::test, static_cast<uint64_t>(bits), 0, 0});
  for (size_t count = 0; count < 40; ++count) {
    std::vector<uint16_t> codes(count), back(count, 0xFFFF);
    for (size_t i = 0; i < count; ++i) codes[i] = static_cast<uint16_t>(stream.u32(i) >> (32 - bits));
    const std::vector<uint8_t> packed = pack_codes(codes, bits);
    ASSERT_EQ(packed.size(), (count * static_cast<size_t>(bits) + 7) / 8);
    unpack_codes(packed, bits, back);
    ASSERT_EQ(back, codes);
  }
}

TEST_P(BitPacking, BitOrderIsLittleEndian) {
  const int bits = GetParam();
  const size_t count = 21;
  for (size_t i = 0; i < count; ++i)
    for (int bit = 0; bit < bits; ++bit) {
      std::vector<uint16_t> codes(count, 0);
      codes[i] = static_cast<uint16_t>(1u << bit);
      const size_t position = i * static_cast<size_t>(bits) + static_cast<size_t>(bit);
      std::vector<uint8_t> expected((count * static_cast<size_t>(bits) + 7) / 8, 0);
      expected[position / 8] = static_cast<uint8_t>(1u << position % 8);
      ASSERT_EQ(pack_codes(codes, bits), expected) << "code " << i << " bit " << bit;
    }
}

TEST_P(BitPacking, RefusesWrongSizes) {
  const int bits = GetParam();
  std::vector<uint16_t> codes(9, 0);
  std::vector<uint8_t> packed = pack_codes(codes, bits);
  packed.push_back(0);
  EXPECT_THROW(unpack_codes(packed, bits, codes), Error);
  packed.pop_back();
  packed.pop_back();
  EXPECT_THROW(unpack_codes(packed, bits, codes), Error);
  if (bits < 16) {
    codes[4] = static_cast<uint16_t>(1u << bits);
    EXPECT_THROW(pack_codes(codes, bits), InternalError);
  }
}

TEST_P(BitPacking, OfBytesIsTheSame) {
  const int bits = GetParam();
  std::vector<uint8_t> codes(77);
  if (bits > 8) {
    EXPECT_THROW(pack_codes(codes, bits), InternalError);
    EXPECT_THROW(unpack_codes(std::vector<uint8_t>(static_cast<size_t>(packed_bytes(77, bits))), bits, codes), Error);
    return;
  }
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 89 % (size_t{1} << bits));
  const std::vector<uint8_t> packed = pack_codes(codes, bits);
  EXPECT_EQ(packed, pack_codes(std::vector<uint16_t>(codes.begin(), codes.end()), bits));
  std::vector<uint8_t> back(codes.size());
  unpack_codes(packed, bits, back);
  EXPECT_EQ(back, codes);
}

INSTANTIATE_TEST_SUITE_P(Widths, BitPacking, testing::Range(1, 17));

TEST(BitPackingSizes, BitsPerCode) {
  const std::vector<std::pair<int64_t, int>> expected = {{1, 1},   {2, 1},   {3, 2},   {4, 2},      {5, 3},
                                                         {255, 8}, {256, 8}, {257, 9}, {65535, 16}, {65536, 16}};
  for (const auto& [k, bits] : expected) EXPECT_EQ(bits_per_code(k), bits) << k;
  EXPECT_THROW(bits_per_code(65537), InternalError);
  std::vector<uint16_t> none;
  EXPECT_THROW(unpack_codes({}, 17, none), Error);
}

}  // namespace
}  // namespace qn::test
