#include "core/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace qn {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Memory that is taken at once, as that of devices is: arenas take no more of it than they must.
const Memory kTakenAtOnce{"taken at once", host_memory().allocate, host_memory().release};

/// The allocations of a made-up step; every byte is written, so that overlaps destroy earlier contents.
std::vector<void*> step(Arena& arena, const std::vector<size_t>& sizes) {
  std::vector<void*> addresses;
  for (size_t i = 0; i < sizes.size(); ++i) {
    addresses.push_back(arena.allocate(sizes[i]));
    std::memset(addresses.back(), static_cast<int>(i + 1), sizes[i]);
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto* bytes = static_cast<const unsigned char*>(addresses[i]);
    const auto is_mine = [i](unsigned char byte) { return byte == i + 1; };
    EXPECT_TRUE(std::all_of(bytes, bytes + sizes[i], is_mine)) << "allocation " << i << " was overwritten";
    EXPECT_EQ(reinterpret_cast<uintptr_t>(addresses[i]) % 64, 0u);
  }
  return addresses;
}

void expect_equal_addresses(Arena& arena, int64_t blocks) {
  const std::vector<size_t> sizes = {1, 100, 0, 5 * kMiB, 20 * kMiB, 63, 64, 65, 30 * kMiB};
  step(arena, sizes);
  EXPECT_EQ(arena.system_allocations(), blocks);
  arena.reset();  // merges the blocks
  const std::vector<void*> second = step(arena, sizes);
  const int64_t allocations = arena.system_allocations();
  for (int i = 0; i < 3; ++i) {
    arena.reset();
    EXPECT_EQ(step(arena, sizes), second);
  }
  EXPECT_EQ(arena.system_allocations(), allocations);
}

TEST(Arena, EqualStepsGetEqualAddressesWithoutSystemMemory) {
  Arena of_host, arena(kTakenAtOnce);
  expect_equal_addresses(of_host, 1);
  expect_equal_addresses(arena, 4);  // 16, 20, 18 and 30 MiB
}

TEST(Arena, PeakCountsWhatWasInUse) {
  Arena arena;
  arena.allocate(1000);
  arena.allocate(1000);
  const size_t peak = arena.peak();
  EXPECT_GE(peak, 2000u);
  EXPECT_LE(peak, 2200u);
  arena.reset();
  arena.allocate(10);
  EXPECT_EQ(arena.peak(), peak);
  EXPECT_GE(arena.capacity(), peak);
}

TEST(Arena, ScratchIsReused) {
  Arena arena;
  arena.allocate(100);
  void* first = nullptr;
  {
    const ScratchScope scratch(arena);
    first = arena.allocate(1000);
    {
      const ScratchScope inner(arena);
      EXPECT_NE(arena.allocate(10), first);
    }
  }
  EXPECT_EQ(arena.allocate(500), first);
}

TEST(Arena, ScratchAcrossBlocksIsReused) {
  Arena arena(kTakenAtOnce);
  void* keep = arena.allocate(64);
  std::memset(keep, 7, 64);
  void* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    const ScratchScope scratch(arena);
    arena.allocate(10 * kMiB);
    void* large = arena.allocate(40 * kMiB);  // does not fit into the first block
    if (i == 0) first = large;
    EXPECT_EQ(large, first);
  }
  EXPECT_EQ(static_cast<unsigned char*>(keep)[63], 7);
  EXPECT_EQ(arena.system_allocations(), 2);
}

TEST(Arena, TensorsHaveTheirBytes) {
  Arena arena;
  const Tensor a = arena.tensor({3, 5}, DType::f64);
  const Tensor b = arena.tensor({2}, DType::u8);
  EXPECT_EQ(a.bytes(), 120u);
  EXPECT_EQ(a.dtype, DType::f64);
  EXPECT_GE(static_cast<std::byte*>(b.data) - static_cast<std::byte*>(a.data), 120);
}

}  // namespace
}  // namespace qn
