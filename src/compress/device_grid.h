// The grid of a tensor in the backend's memory, at addresses that stay (recorded passes keep them).
#pragma once

#include "ops/kernels.h"

namespace qn {

class DeviceGrid {
 public:
  bool is_set() const { return memory_ != nullptr; }
  void set(const Kernels& kernels, DType dtype, double scale, double zero_point) {
    if (memory_ != kernels.memory || scale_.view().dtype != dtype) {
      scale_ = OwnedTensor({1}, dtype, *kernels.memory);
      zero_point_ = OwnedTensor({1}, dtype, *kernels.memory);
      memory_ = kernels.memory;
    }
    kernels.fill(scale_.view(), scale);
    kernels.fill(zero_point_.view(), zero_point);
  }
  const Tensor& scale() const { return scale_.view(); }
  const Tensor& zero_point() const { return zero_point_.view(); }

 private:
  OwnedTensor scale_, zero_point_;
  const Memory* memory_ = nullptr;
};

}  // namespace qn
