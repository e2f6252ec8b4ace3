#include "ops/cuda/pinned_memory.h"

#include "core/memory_pool.h"
#include "ops/cuda/check.h"

namespace qn::cuda {
namespace {

void* take(size_t bytes) {
  void* block = nullptr;
  QN_CUDA_CHECK(cudaMallocHost(&block, bytes));
  return block;
}

/// Blocks are never given back to the system: there are as many as one checkpoint needs, and the runtime library may be
/// gone when static objects are destroyed.
MemoryPool& pool() {
  static auto* const instance = new MemoryPool(take, nullptr);
  return *instance;
}

}  // namespace

const Memory& pinned_memory() {
  static const Memory memory{"page-locked", [](size_t bytes) { return pool().allocate(bytes); },
                             [](void* block) { pool().release(block); }};
  return memory;
}

}  // namespace qn::cuda
