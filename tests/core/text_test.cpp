#include "core/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(EditDistance, KnownPairs) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2u);
  EXPECT_EQ(edit_distance("same", "same"), 0u);
}

TEST(Nearest, ClosestFirst) {
  const std::vector<std::string> names = {"learning_rate", "lr_scheduler", "momentum", "learning_rates"};
  EXPECT_THAT(nearest("learnig_rate", names), ElementsAre("learning_rate"));
  EXPECT_THAT(nearest("learning_rates", names, 2), ElementsAre("learning_rates", "learning_rate"));
  EXPECT_EQ(nearest("x", names, 99).size(), names.size());
  EXPECT_THAT(nearest("x", std::vector<std::string>{}), IsEmpty());
  EXPECT_THAT(nearest("ab", std::vector<std::string>{"ac", "ad"}, 2), ElementsAre("ac", "ad"))
      << "ties keep their order";
}

TEST(FormatBytes, UnitsOf1024) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(40544870), "38.67 MiB");
  EXPECT_EQ(format_bytes(uint64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(format_bytes(uint64_t{1} << 42), "4096.00 GiB");
}

TEST(GroupDigits, GroupsOfThree) {
  EXPECT_EQ(group_digits(0), "0");
  EXPECT_EQ(group_digits(999), "999");
  EXPECT_EQ(group_digits(1000), "1,000");
  EXPECT_EQ(group_digits(6221568), "6,221,568");
  EXPECT_EQ(group_digits(-123456), "-123,456");
  EXPECT_EQ(group_digits(-1234567), "-1,234,567");
}

TEST(Hex64, SixteenDigits) {
  EXPECT_EQ(hex64(0), "0000000000000000");
  EXPECT_EQ(hex64(0xDEADBEEF), "00000000deadbeef");
  EXPECT_EQ(hex64(~uint64_t{0}), "ffffffffffffffff");
}

TEST(HashBytes, IsXxh3) {
  // Published values: XXH3_64bits of nothing and of "a" with seed 0.
  EXPECT_EQ(hash_bytes("", 0), 0x2d06800538d394c2ULL);
  EXPECT_EQ(hash_bytes("a", 1), 0xe6c632b61e964e1fULL);
  EXPECT_NE(hash_bytes("ab", 2), hash_bytes("ba", 2));
}

}  // namespace
}  // namespace qn
