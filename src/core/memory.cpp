#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace qn {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* allocate_host(size_t bytes) {
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const size_t rounded = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, rounded);
  if (p == nullptr) throw std::bad_alloc();
  // Kernels that go down the columns of a matrix touch more small pages than the processor remembers addresses of.
  // Systems without huge pages decline, and nothing is lost.
  if (alignment == kHugePage) madvise(p, rounded, MADV_HUGEPAGE);
  std::memset(p, 0, rounded);
  return p;
}

}  // namespace

const Memory& host_memory() {
  static const Memory memory{"host", allocate_host, std::free};
  return memory;
}

}  // namespace qn
