// Matrix products in P: oneDNN for float, plain loops for double (gradient checks only).
#pragma once

#include <cstdint>

namespace qn::cpu {

/// C[m, n] = beta * C + alpha * op(A) op(B), row-major. Inside a parallel region it runs on the calling thread.
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

}  // namespace qn::cpu
