// What the CUDA kernels of one thread share: stream, cuBLASLt, scratch memory, a staging buffer for uploads.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <memory>

#include "core/arena.h"

namespace qn::cuda {

class MatmulPlans;

/// Memory of the device that the calling thread has selected.
const Memory& device_memory();

class Context {
 public:
  /// The calling thread's, made at first use on the device it has selected.
  static Context& current();

  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  cudaStream_t stream() const { return stream_; }
  /// Temporary memory of one kernel, through a ScratchScope. As everything runs on one stream, the next kernel may
  /// overwrite what the last one's scope gave back.
  Arena& scratch() { return scratch_; }
  MatmulPlans& matmul_plans() { return *plans_; }

  // See ops/kernels.h.
  void upload(void* to, const void* from_host, size_t bytes);
  void download(void* to_host, const void* from, size_t bytes);
  void start_download(void* to, const void* from, size_t bytes);
  int64_t mark();
  void wait(int64_t mark);

  /// While a graph is recorded, update and micro-batch of random keys are read from here, where a launch of the graph
  /// writes them; null otherwise.
  const uint32_t* recorded_pass() const { return recording_ ? pass_numbers() : nullptr; }
  uint32_t* pass_numbers() const { return reinterpret_cast<uint32_t*>(pass_numbers_.data()); }
  void set_recording(bool recording) { recording_ = recording; }

 private:
  static constexpr size_t kStagingHalf = size_t{4} << 20;
  std::byte* staging_place(size_t bytes);

  cudaStream_t stream_ = nullptr;
  Buffer staging_;                      // page-locked: two halves, of which one fills while copies out of the other end
  size_t half_ = 0, staged_ = 0;        // bytes of the current half that copies in flight may still read
  std::array<int64_t, 2> half_done_{};  // marks after the last copies out of the halves
  std::array<cudaEvent_t, 64> events_{};  // of marks, in turn
  int64_t marks_ = 0;
  Buffer pass_numbers_;
  bool recording_ = false;
  Arena scratch_;
  std::unique_ptr<MatmulPlans> plans_;
};

}  // namespace qn::cuda
