#include "ops/tape.h"

#include <algorithm>
#include <atomic>

namespace qn {

uint64_t Tape::next_pass_id() {
  static std::atomic<uint64_t> counter{0};
  return ++counter;
}

Var Tape::result_with_gradient(Shape shape, DType grad) {
  Var v{tensor(shape), nullptr};
  if (recording()) {
    v.slot = new (host_arena_.allocate(sizeof(GradientSlot))) GradientSlot{{nullptr, shape, grad}, false};
    slots_.push_back(v.slot);
  }
  return v;
}

const int32_t* Tape::upload(std::span<const int32_t> indices) {
  auto* place = static_cast<int32_t*>(arena.allocate(indices.size_bytes()));
  k.upload(place, indices.data(), indices.size_bytes());
  return place;
}

Tape::Slot Tape::slot(const Var& v) {
  QN_ASSERT(v.slot != nullptr);
  GradientSlot& slot = *v.slot;
  if (!slot.grad.defined()) slot.grad = gradient_memory(v.value.shape, slot.grad.dtype);
  const int beta = slot.touched ? 1 : 0;
  slot.touched = true;
  return {slot.grad, beta};
}

/// The block that was given back last is the likeliest to be in a cache.
Tensor Tape::gradient_memory(Shape shape, DType dtype) {
  const size_t bytes = static_cast<size_t>(shape.elements()) * size_of(dtype);
  for (size_t i = blocks_.size(); i-- > 0;)
    if (blocks_[i].holders == 0 && blocks_[i].bytes == bytes) {
      std::rotate(blocks_.begin() + static_cast<std::ptrdiff_t>(i),
                  blocks_.begin() + static_cast<std::ptrdiff_t>(i) + 1, blocks_.end());
      blocks_.back().holders = 1;
      return {blocks_.back().data, shape, dtype};
    }
  const Tensor memory = arena.tensor(shape, dtype);
  blocks_.push_back({static_cast<std::byte*>(memory.data), bytes, 1});
  return memory;
}

Tape::Block* Tape::block_of(const Tensor& memory) {
  const auto found =
      std::find_if(blocks_.rbegin(), blocks_.rend(), [&](const Block& b) { return b.data == memory.data; });
  return found != blocks_.rend() ? &*found : nullptr;
}

void Tape::take_over(const Var& v, const Tensor& memory, bool touched) {
  QN_ASSERT(v.slot != nullptr && !v.slot->touched && !v.slot->grad.defined());
  *v.slot = {memory, touched};
  if (Block* block = block_of(memory); block != nullptr) ++block->holders;
}

/// Nothing reads the gradients of a step's results behind it.
void Tape::release_results(size_t step) {
  const size_t first = step > 0 ? steps_[step - 1].slots : 0;
  for (size_t i = first; i < steps_[step].slots; ++i)
    if (Block* block = block_of(slots_[i]->grad); block != nullptr) --block->holders;
}

Tensor Tape::accumulation_slot(const Var& v) {
  const Slot s = slot(v);
  if (s.beta == 0) k.fill(s.grad, 0.0);
  return s.grad;
}

void Tape::restart(const PassOptions& pass) {
  steps_.clear();
  slots_.clear();
  blocks_.clear();
  host_arena_.reset();
  pass_ = pass;
  pass_id_ = next_pass_id();
}

}  // namespace qn
