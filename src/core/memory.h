// Where tensors live: the host's memory, or that of a device.
#pragma once

#include <cstddef>

namespace qn {

constexpr size_t kMemoryAlign = 64;  ///< bytes: a line of the cache, and the largest vector register

/// One kind of memory. Two tensors are in the same memory when their Memory objects are the same.
struct Memory {
  const char* name;
  /// `bytes` bytes of zeros, aligned to kMemoryAlign; throws when there is not enough.
  void* (*allocate)(size_t bytes);
  void (*release)(void* p);
};

const Memory& host_memory();

}  // namespace qn
