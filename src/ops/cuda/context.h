// What the CUDA kernels of one thread share: stream, cuBLASLt, scratch memory, a staging buffer for uploads.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

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

  void upload(void* to, const void* from_host, size_t bytes);
  void download(void* to_host, const void* from, size_t bytes);

 private:
  static constexpr size_t kStaging = size_t{4} << 20;
  cudaStream_t stream_ = nullptr;
  std::byte* staging_ = nullptr;  // page-locked
  size_t staged_ = 0;             // bytes of it that copies in flight may still read
  Arena scratch_;
  std::unique_ptr<MatmulPlans> plans_;
};

}  // namespace qn::cuda
