#include "core/pooled_memory.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <new>

#include "core/mapped_pages.h"

namespace qn {
namespace {

constexpr size_t kRun = size_t{64} << 20;  // of addresses; pages are taken when they are written to

/// At the beginning of a run of pieces, whose address is a multiple of kRun. A piece larger than a run has one of its
/// own.
struct Run {
  size_t bytes, used, pieces;
};
static_assert(sizeof(Run) <= kMemoryAlign);

std::mutex mutex;
Run* current = nullptr;  // null, or with at least one piece

Run* make_run(size_t bytes) { return new (map_zeros(bytes, kRun)) Run{bytes, kMemoryAlign, 0}; }

void* allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kMemoryAlign - 1) / kMemoryAlign * kMemoryAlign;
  const std::lock_guard lock(mutex);
  Run* run = current;
  if (run == nullptr || run->used + rounded > run->bytes) {
    run = make_run(std::max(kRun, (rounded + kMemoryAlign + kHugePage - 1) / kHugePage * kHugePage));
    if (run->bytes == kRun) current = run;
  }
  void* piece = reinterpret_cast<char*>(run) + run->used;
  run->used += rounded;
  ++run->pieces;
  return piece;
}

void release(void* piece) {
  const std::lock_guard lock(mutex);
  // Where a run is longer than kRun, its one piece begins in front.
  auto* run = reinterpret_cast<Run*>(reinterpret_cast<uintptr_t>(piece) / kRun * kRun);
  if (--run->pieces > 0) return;
  if (run == current) current = nullptr;
  unmap(run, run->bytes);
}

}  // namespace

const Memory& pooled_host_memory() {
  static const Memory memory{"host", allocate, release};
  return memory;
}

}  // namespace qn
