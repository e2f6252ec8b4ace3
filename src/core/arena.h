// The step arena: everything an update allocates comes from here and is released at once. Allocation is a bump of a
// pointer, so equal steps get equal addresses; after the first step no system memory is asked for.
#pragma once

#include <cstddef>
#include <vector>

#include "core/tensor.h"

namespace qn {

class Arena {
 public:
  /// Blocks come from `memory`, of at least `minimum_block` bytes (the host's: more); none before the first allocation.
  explicit Arena(const Memory& memory = host_memory(), size_t minimum_block = size_t{16} << 20)
      : memory_(&memory), minimum_block_(minimum_block) {}

  /// 64-byte aligned, uninitialised.
  void* allocate(size_t bytes);
  Tensor tensor(Shape shape, DType dtype) {
    return {allocate(static_cast<size_t>(shape.elements()) * size_of(dtype)), shape, dtype};
  }

  /// Releases everything. If the step needed several blocks they are merged into one, so the next one needs none.
  void reset();

  /// Position for a later rewind(): scratch used inside one op is returned this way.
  struct Mark {
    size_t block, used;
  };
  Mark mark() const { return {current_, used_}; }
  void rewind(Mark mark);

  size_t capacity() const;  ///< bytes held from the system
  size_t peak() const { return peak_; }
  int64_t system_allocations() const { return system_allocations_; }

 private:
  void add_block(size_t bytes);
  size_t in_use() const;

  const Memory* memory_;
  size_t minimum_block_;
  std::vector<Buffer> blocks_;
  size_t current_ = 0, used_ = 0, peak_ = 0;
  int64_t system_allocations_ = 0;
};

/// Rewinds the arena when it goes out of scope.
class ScratchScope {
 public:
  explicit ScratchScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ScratchScope() { arena_.rewind(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace qn
