#include "core/kept_memory.h"

#include <algorithm>

namespace qn {

void* KeptMemory::allocate(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1);
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(unused_.begin(), unused_.end(), [&](const Unused& u) { return u.bytes == bytes; });
  void* block = nullptr;
  if (found != unused_.end()) {
    block = found->block;
    unused_.erase(found);
  } else {
    if (give_back_ != nullptr && bytes >= smallest_kept_) give_back_unused(bytes);
    block = take_(bytes);
  }
  in_use_[block] = bytes;
  return block;
}

void KeptMemory::give_back_unused(size_t bytes) {
  for (size_t given = 0; given < bytes && !unused_.empty(); unused_.pop_front()) {
    give_back_(unused_.front().block);
    given += unused_.front().bytes;
  }
}

void KeptMemory::release(void* block) {
  const std::lock_guard lock(mutex_);
  const auto used = in_use_.find(block);
  const size_t bytes = used->second;
  in_use_.erase(used);
  if (give_back_ != nullptr && bytes < smallest_kept_) {
    give_back_(block);
  } else {
    unused_.push_back({block, bytes});
  }
}

size_t KeptMemory::unused_bytes() const {
  const std::lock_guard lock(mutex_);
  size_t bytes = 0;
  for (const Unused& u : unused_) bytes += u.bytes;
  return bytes;
}

}  // namespace qn
