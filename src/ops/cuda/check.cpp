#include "ops/cuda/check.h"

#include "core/error.h"

namespace qn::cuda {

void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line) {
  fail(
      "CUDA: {} ({}) from {} at {}:{}; kernels are asynchronous, so an earlier one may be to blame: run again with "
      "CUDA_LAUNCH_BLOCKING=1 to see which",
      cudaGetErrorString(status), cudaGetErrorName(status), call, file, line);
}

void throw_cublas_error(cublasStatus_t status, const char* call, const char* file, int line) {
  fail("cuBLASLt: {} from {} at {}:{}", cublasLtGetStatusName(status), call, file, line);
}

}  // namespace qn::cuda
