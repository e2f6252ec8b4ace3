#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/kept_memory.h"

namespace qn {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t alignment_of(size_t bytes) { return bytes >= 2 * kHugePage ? kHugePage : 64; }

size_t rounded_size(size_t bytes) {
  const size_t alignment = alignment_of(bytes);
  return (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
}

void* allocate_unset(size_t bytes) {
  const size_t alignment = alignment_of(bytes), rounded = rounded_size(bytes);
  void* p = std::aligned_alloc(alignment, rounded);
  if (p == nullptr) throw std::bad_alloc();
  // Kernels that go down the columns of a matrix touch more small pages than the processor remembers addresses of.
  // Systems without huge pages decline, and nothing is lost.
  if (alignment == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);
  return p;
}

void* allocate_host(size_t bytes) {
  void* p = allocate_unset(bytes);
  std::memset(p, 0, rounded_size(bytes));
  return p;
}

KeptMemory& kept_blocks() {
  constexpr size_t kSmallestKept = size_t{1} << 20;
  static auto* const pool = new KeptMemory(allocate_unset, std::free, kSmallestKept);  // outlives static objects
  return *pool;
}

}  // namespace

const Memory& host_memory() {
  static const Memory memory{"host", allocate_host, std::free};
  return memory;
}

const Memory& kept_host_memory() {
  static const Memory memory{"host", [](size_t bytes) { return kept_blocks().allocate(bytes); },
                             [](void* p) { kept_blocks().release(p); }};
  return memory;
}

}  // namespace qn
