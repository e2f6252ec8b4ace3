#include "core/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <new>

#include "core/tensor.h"

namespace qn::test {
namespace {

int64_t resident_bytes() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(HostMemory, BlocksAreZeroAndAligned) {
  for (int round = 0; round < 2; ++round)  // also where there was something before
    for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{3} << 20, (size_t{4} << 20) + 1, size_t{32} << 20}) {
      const Buffer block(bytes, host_memory());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block.data()) % 64, 0u);
      for (size_t i = 0; i < bytes; i += 509) ASSERT_EQ(block.data()[i], std::byte{0});
      for (size_t i = 0; i < bytes; i += 509) block.data()[i] = std::byte{1};
      block.data()[bytes - 1] = std::byte{1};
    }
}

TEST(HostMemory, WhatIsNotWrittenTakesNone) {
  constexpr size_t kBytes = size_t{256} << 20;
  const int64_t before = resident_bytes();
  {
    const Buffer block(kBytes, host_memory());
    block.data()[kBytes / 2] = std::byte{1};
    EXPECT_LT(resident_bytes() - before, int64_t{16} << 20);
    for (size_t i = 0; i < kBytes; i += 4096) block.data()[i] = std::byte{1};
    EXPECT_GT(resident_bytes() - before, int64_t{200} << 20);
  }
  EXPECT_LT(resident_bytes() - before, int64_t{32} << 20) << "given back at once";
}

TEST(HostMemory, SaysWhereThereIsNotEnough) {
  EXPECT_THROW(Buffer(SIZE_MAX - 10, host_memory()), std::bad_alloc);
  EXPECT_THROW(Buffer(SIZE_MAX / 4, host_memory()), std::bad_alloc);
}

}  // namespace
}  // namespace qn::test
