#include "ops/cuda/pinned_memory.h"

#include "core/kept_memory.h"
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
KeptMemory& pool() {
  static auto* const instance = new KeptMemory(take, nullptr);
  return *instance;
}

}  // namespace

const Memory& pinned_memory() {
  static const Memory memory{"page-locked", [](size_t bytes) { return pool().allocate(bytes); },
                             [](void* block) { pool().release(block); }};
  return memory;
}

}  // namespace qn::cuda
