#include "nn/buffers.h"

#include <algorithm>

#include "core/error.h"

namespace qn {

ModuleBuffer* BufferStore::add(std::string name, Shape shape, double start) {
  QN_ASSERT(find(name) == nullptr, "buffer {} exists already", name);
  auto buffer = std::make_unique<ModuleBuffer>();
  buffer->name = std::move(name);
  buffer->shape = shape;
  buffer->start = start;
  return buffers_.emplace_back(std::move(buffer)).get();
}

void BufferStore::remove(const ModuleBuffer* buffer) {
  std::erase_if(buffers_, [&](const auto& b) { return b.get() == buffer; });
}

ModuleBuffer* BufferStore::find(const std::string& name) const {
  for (const auto& b : buffers_)
    if (b->name == name) return b.get();
  return nullptr;
}

void BufferStore::allocate(DType dtype, const Kernels& kernels) {
  const bool moved = kernels_ != nullptr && kernels_->memory != kernels.memory;
  for (const auto& b : buffers_) {
    if (!moved && b->value.defined() && b->value.view().dtype == dtype) continue;
    b->value = OwnedTensor(b->shape, dtype, *kernels.memory);
    kernels.fill(b->value.view(), b->start);
  }
  kernels_ = &kernels;
}

}  // namespace qn
