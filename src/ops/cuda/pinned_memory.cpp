#include "ops/cuda/pinned_memory.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "core/error.h"
#include "ops/cuda/check.h"

namespace qn::cuda {
namespace {

/// Blocks are never given back to the system: there are as many as one checkpoint needs, and the runtime library may be
/// gone when static objects are destroyed.
struct Pool {
  std::mutex mutex;
  std::multimap<size_t, void*> unused;
  std::map<void*, size_t> sizes;
};

Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

void* allocate(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1);
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  void* block = nullptr;
  if (const auto found = p.unused.find(bytes); found != p.unused.end()) {
    block = found->second;
    p.unused.erase(found);
  } else {
    QN_CUDA_CHECK(cudaMallocHost(&block, bytes));
    p.sizes[block] = bytes;
  }
  return block;
}

void release(void* block) {
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  p.unused.emplace(p.sizes.at(block), block);
}

}  // namespace

const Memory& pinned_memory() {
  static const Memory memory{"page-locked", allocate, release};
  return memory;
}

}  // namespace qn::cuda
