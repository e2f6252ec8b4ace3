#include "core/pooled_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace qn::test {
namespace {

Buffer piece(size_t bytes) { return Buffer(bytes, pooled_host_memory()); }

TEST(PooledMemory, PiecesAreZeroAlignedAndApart) {
  std::vector<Buffer> pieces;
  for (const size_t bytes : {size_t{1}, size_t{63}, size_t{64}, size_t{100'000}, size_t{0}, size_t{3'000'000}}) {
    pieces.push_back(piece(bytes));
    const Buffer& last = pieces.back();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(last.data()) % 64, 0u);
    EXPECT_TRUE(std::all_of(last.data(), last.data() + bytes, [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(last.data(), bytes, static_cast<std::byte>(pieces.size()));
  }
  for (size_t i = 0; i < pieces.size(); ++i)
    EXPECT_TRUE(std::all_of(pieces[i].data(), pieces[i].data() + pieces[i].size(),
                            [i](std::byte b) { return b == static_cast<std::byte>(i + 1); }));
}

TEST(PooledMemory, GivesRunsBackAndGoesOn) {
  for (int round = 0; round < 3; ++round) {
    std::vector<Buffer> pieces;
    for (int i = 0; i < 5; ++i) {  // more than one run
      pieces.push_back(piece(size_t{20} << 20));
      EXPECT_EQ(pieces.back().data()[0], std::byte{0});  // also where there was something before
      pieces.back().data()[0] = std::byte{1};
    }
    pieces.erase(pieces.begin() + round);
    pieces.push_back(piece(1000));
    pieces.back().data()[999] = std::byte{1};
  }
}

TEST(PooledMemory, TakesWhatIsLargerThanARun) {
  const Buffer before = piece(10), large = piece(size_t{200} << 20), behind = piece(10);
  large.data()[0] = large.data()[large.size() - 1] = std::byte{1};
  EXPECT_EQ(before.data()[0], std::byte{0});
  EXPECT_EQ(behind.data()[0], std::byte{0});
}

}  // namespace
}  // namespace qn::test
