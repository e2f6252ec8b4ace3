// Tensors of a module that are saved but not trained: observed ranges, running statistics, codebooks of noise. They
// live in the backend's memory, in the parameters' type.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/kernels.h"

namespace qn {

struct ModuleBuffer {
  std::string name;
  Shape shape;
  double start = 0.0;  ///< what every element starts as
  std::string former;  ///< the name that older checkpoints have it under, perhaps together with others; often empty
  /// Where weights are averaged over updates, so is this (running statistics); else it is as training has it.
  bool averaged = true;
  OwnedTensor value;  ///< defined after allocate()
};

class BufferStore {
 public:
  /// Names are unique. Memory comes with allocate().
  ModuleBuffer* add(std::string name, Shape shape, double start);
  void remove(const ModuleBuffer* buffer);
  ModuleBuffer* find(const std::string& name) const;  ///< nullptr when there is none
  const std::vector<std::unique_ptr<ModuleBuffer>>& all() const { return buffers_; }
  /// Gives memory to the buffers that have none in this type and backend; the others keep their values.
  void allocate(DType dtype, const Kernels& kernels);

 private:
  std::vector<std::unique_ptr<ModuleBuffer>> buffers_;
  const Kernels* kernels_ = nullptr;
};

}  // namespace qn
