#include "core/mapped_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace qn {

void* map_zeros(size_t bytes, size_t alignment) {
  const size_t reserved = bytes + alignment;
  if (reserved < bytes) throw std::bad_alloc();
  void* all = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  const auto begin = reinterpret_cast<uintptr_t>(all), aligned = (begin + alignment - 1) / alignment * alignment;
  if (aligned > begin) munmap(all, aligned - begin);
  if (begin + reserved > aligned + bytes)
    munmap(reinterpret_cast<void*>(aligned + bytes), begin + reserved - aligned - bytes);
  auto* pages = reinterpret_cast<void*>(aligned);
  madvise(pages, bytes, MADV_HUGEPAGE);  // systems without huge pages decline, and nothing is lost
  return pages;
}

void unmap(void* pages, size_t bytes) { munmap(pages, bytes); }

}  // namespace qn
