#include "core/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "core/kept_memory.h"
#include "core/mapped_pages.h"

namespace qn {
namespace {

constexpr size_t kMapped = 2 * kHugePage;  // blocks of so many bytes and more are pages of their own

size_t rounded_to(size_t bytes, size_t step) {
  if (bytes > SIZE_MAX - step) throw std::bad_alloc();
  return (std::max<size_t>(bytes, 1) + step - 1) / step * step;
}

/// Zeros that nobody has written, so that what is never used of a block takes no memory.
class MappedBlocks {
 public:
  void* allocate(size_t bytes) {
    const size_t rounded = rounded_to(bytes, kHugePage);
    void* block = map_zeros(rounded, kHugePage);
    const std::lock_guard lock(mutex_);
    sizes_.emplace(block, rounded);
    return block;
  }
  /// False: it is none of these.
  bool release(void* block) {
    size_t bytes;
    {
      const std::lock_guard lock(mutex_);
      const auto found = sizes_.find(block);
      if (found == sizes_.end()) return false;
      bytes = found->second;
      sizes_.erase(found);
    }
    unmap(block, bytes);
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<void*, size_t> sizes_;
};

MappedBlocks& mapped_blocks() {
  static auto* const blocks = new MappedBlocks;  // outlives static objects
  return *blocks;
}

void* allocate_host(size_t bytes) {
  if (bytes >= kMapped) return mapped_blocks().allocate(bytes);
  const size_t rounded = rounded_to(bytes, kMemoryAlign);
  void* p = std::aligned_alloc(kMemoryAlign, rounded);
  if (p == nullptr) throw std::bad_alloc();
  return std::memset(p, 0, rounded);
}

void release_host(void* p) {
  if (reinterpret_cast<uintptr_t>(p) % kHugePage != 0 || !mapped_blocks().release(p)) std::free(p);
}

KeptMemory& kept_blocks() {
  constexpr size_t kSmallestKept = size_t{1} << 20;
  static auto* const pool = new KeptMemory(allocate_host, release_host, kSmallestKept);  // outlives static objects
  return *pool;
}

}  // namespace

const Memory& host_memory() {
  static const Memory memory{"host", allocate_host, release_host};
  return memory;
}

const Memory& kept_host_memory() {
  static const Memory memory{"host", [](size_t bytes) { return kept_blocks().allocate(bytes); },
                             [](void* p) { kept_blocks().release(p); }};
  return memory;
}

}  // namespace qn
