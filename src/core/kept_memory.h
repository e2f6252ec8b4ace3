// Memory that is asked for in the same sizes again and again, and is slow to get: snapshots for checkpoints.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>

#include "core/memory.h"

namespace qn {

/// Keeps released blocks for the next request of the same size. Blocks hold anything. Safe to use from all threads.
class KeptMemory {
 public:
  using Take = void* (*)(size_t bytes);  ///< throws when there is not enough
  using GiveBack = void (*)(void* block);
  /// Where `give_back` is null, blocks are kept for ever. Else a request that finds no block of its size gives back as
  /// many bytes of unused ones as it takes, oldest first: the pool never holds more than was in use at one time, plus
  /// one block. Blocks of less than `smallest_kept` bytes go back at once.
  KeptMemory(Take take, GiveBack give_back, size_t smallest_kept = 0)
      : take_(take), give_back_(give_back), smallest_kept_(smallest_kept) {}
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  void* allocate(size_t bytes);
  void release(void* block);
  size_t unused_bytes() const;

 private:
  struct Unused {
    void* block;
    size_t bytes;
  };
  void give_back_unused(size_t bytes);

  const Take take_;
  const GiveBack give_back_;
  const size_t smallest_kept_;
  mutable std::mutex mutex_;
  std::map<void*, size_t> in_use_;
  std::deque<Unused> unused_;  // oldest first
};

/// Host memory as host_memory(), of which blocks of a MiB and more stay with the process for the next request of their
/// size, so that they need not be cleared and mapped anew. Holds anything at first.
const Memory& kept_host_memory();

}  // namespace qn
