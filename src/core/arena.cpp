#include "core/arena.h"

#include <algorithm>
#include <new>

namespace qn {
namespace {
constexpr size_t kHostBlock = size_t{512} << 20;
}  // namespace

void* Arena::allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kMemoryAlign - 1) / kMemoryAlign * kMemoryAlign;
  while (current_ < blocks_.size() && used_ + rounded > blocks_[current_].size()) {
    ++current_;
    used_ = 0;
  }
  if (current_ == blocks_.size()) {
    const size_t usual = std::max({rounded, minimum_block_, capacity() / 2});
    // Pages of the host are taken when they are written to: a block with room for all that is to come costs nothing,
    // and many blocks would each have an end that goes unused once and is used another time.
    if (memory_ != &host_memory())
      add_block(usual);
    else
      try {
        add_block(std::max({usual, kHostBlock, capacity()}));
      } catch (const std::bad_alloc&) {  // a system that counts addresses
        add_block(usual);
      }
  }
  void* p = blocks_[current_].data() + used_;
  used_ += rounded;
  peak_ = std::max(peak_, in_use());
  return p;
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    const size_t total = capacity();
    blocks_.clear();
    add_block(total);
  }
  current_ = used_ = 0;
}

void Arena::add_block(size_t bytes) {
  blocks_.emplace_back(bytes, *memory_);
  ++system_allocations_;
}

void Arena::rewind(Mark mark) {
  current_ = mark.block;
  used_ = mark.used;
}

size_t Arena::capacity() const {
  size_t total = 0;
  for (const Buffer& b : blocks_) total += b.size();
  return total;
}

size_t Arena::in_use() const {
  size_t total = used_;
  for (size_t i = 0; i < current_; ++i) total += blocks_[i].size();
  return total;
}

}  // namespace qn
