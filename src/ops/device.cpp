#include "ops/device.h"

#include "core/cpu_features.h"
#include "ops/cuda/backend.h"

namespace qn {

bool Device::is_cuda() const {
  return !on_host() && cuda_device_count() > 0 && kernels_->memory == cuda_kernels().memory;
}

std::optional<DeviceMemory> Device::memory() const {
  if (!is_cuda()) return std::nullopt;
  return cuda_memory_use();
}

void* Device::stream() const { return is_cuda() ? cuda_stream() : nullptr; }

bool Device::multiplies_bf16() const { return !on_host() || cpu_multiplies_bf16(); }

void Device::use_tf32(bool use) const {
  if (has_tf32()) allow_tf32(use);
}

}  // namespace qn
