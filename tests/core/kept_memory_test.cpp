#include "core/kept_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace qn {
namespace {

int taken = 0, given_back = 0;

void* take(size_t bytes) {
  ++taken;
  return std::malloc(bytes);
}
void give_back(void* block) {
  ++given_back;
  std::free(block);
}

class KeptMemoryTest : public testing::Test {
 protected:
  void SetUp() override { taken = given_back = 0; }
};

TEST_F(KeptMemoryTest, ServesEqualSizesFromReleasedBlocks) {
  KeptMemory pool(take, give_back, 100);
  const std::vector<size_t> sizes{1000, 2000, 1000};
  std::vector<void*> first, second;
  for (const size_t bytes : sizes) first.push_back(pool.allocate(bytes));
  for (void* block : first) pool.release(block);
  EXPECT_EQ(pool.unused_bytes(), 4000u);
  for (const size_t bytes : sizes) second.push_back(pool.allocate(bytes));
  EXPECT_EQ(second, first);
  EXPECT_EQ(taken, 3);
  EXPECT_EQ(pool.unused_bytes(), 0u);
  for (void* block : second) pool.release(block);
  EXPECT_EQ(given_back, 0);
}

TEST_F(KeptMemoryTest, OtherSizesTakeThePlaceOfOldOnes) {
  KeptMemory pool(take, give_back);
  void* const old = pool.allocate(1000);
  void* const newer = pool.allocate(1000);
  pool.release(old);
  pool.release(newer);
  void* const other = pool.allocate(900);
  EXPECT_EQ(given_back, 1);
  EXPECT_EQ(pool.unused_bytes(), 1000u);
  EXPECT_EQ(pool.allocate(1000), newer) << "the older one went";
  pool.release(other);
}

TEST_F(KeptMemoryTest, SmallBlocksNeitherStayNorDriveOthersOut) {
  KeptMemory pool(take, give_back, 100);
  void* const large = pool.allocate(1000);
  pool.release(large);
  void* const small = pool.allocate(99);
  EXPECT_EQ(given_back, 0);
  pool.release(small);
  EXPECT_EQ(given_back, 1);
  EXPECT_EQ(pool.unused_bytes(), 1000u);
}

TEST_F(KeptMemoryTest, KeepsEverythingThatCannotBeGivenBack) {
  KeptMemory pool(take, nullptr);
  void* const block = pool.allocate(0);
  pool.release(block);
  EXPECT_NE(pool.allocate(8), block);
  EXPECT_EQ(pool.allocate(0), block);
}

TEST(KeptHostMemory, IsAlignedAndKeepsLargeBlocks) {
  const Memory& memory = kept_host_memory();
  for (const size_t bytes : {size_t{1}, size_t{1} << 20, size_t{9} << 20}) {
    void* const block = memory.allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
    memory.release(block);
    if (bytes < (size_t{1} << 20)) continue;
    EXPECT_EQ(memory.allocate(bytes), block);
    memory.release(block);
  }
}

}  // namespace
}  // namespace qn
