// Errors of the CUDA libraries as exceptions: every call goes through one of these.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace qn::cuda {

[[noreturn]] void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line);
[[noreturn]] void throw_cublas_error(cublasStatus_t status, const char* call, const char* file, int line);

}  // namespace qn::cuda

#define QN_CUDA_CHECK(call)                                               \
  do {                                                                    \
    if (const cudaError_t qn_status = (call); qn_status != cudaSuccess)   \
      ::qn::cuda::throw_cuda_error(qn_status, #call, __FILE__, __LINE__); \
  } while (false)

#define QN_CUBLAS_CHECK(call)                                                        \
  do {                                                                               \
    if (const cublasStatus_t qn_status = (call); qn_status != CUBLAS_STATUS_SUCCESS) \
      ::qn::cuda::throw_cublas_error(qn_status, #call, __FILE__, __LINE__);          \
  } while (false)
