// The device behind a Kernels table: the one place that tells backends apart.
#pragma once

#include <cstddef>
#include <optional>

#include "core/enum_names.h"
#include "ops/kernels.h"

namespace qn {

enum class DeviceKind { cpu, cuda };
template <>
struct EnumNames<DeviceKind> {
  static constexpr EnumName<DeviceKind> kAll[] = {{DeviceKind::cpu, "cpu"}, {DeviceKind::cuda, "cuda"}};
};

/// Memory of a device, in bytes.
struct DeviceMemory {
  size_t free = 0, total = 0;  ///< as the driver tells: other processes' use is not free
  size_t scratch = 0;          ///< what this thread's kernels hold for temporary results
};

/// A view: costs nothing to make. The memory that the kernels work in tells the device, so tables that wrap a backend's
/// (a profiler's) are that backend's.
class Device {
 public:
  explicit Device(const Kernels& kernels) : kernels_(&kernels) {}

  const Kernels& kernels() const { return *kernels_; }
  /// Whether host code may follow pointers into its memory.
  bool on_host() const { return kernels_->memory == &host_memory(); }
  bool is_cuda() const;

  /// Nothing where the device has no memory of its own.
  std::optional<DeviceMemory> memory() const;
  /// What the calling thread's kernels are queued on, for what has to be ordered with them: a cudaStream_t; null where
  /// calls return when they are done.
  void* stream() const;

  bool multiplies_bf16() const;  ///< in hardware: every GPU that there is code for does
  bool has_fp16() const { return !on_host(); }
  bool has_tf32() const { return !on_host(); }
  /// From here on f32 products of this process round their operands to TF32 (10 bits of mantissa), or do not.
  void use_tf32(bool use) const;

 private:
  const Kernels* kernels_;
};

}  // namespace qn
