#include <oneapi/dnnl/dnnl.h>

#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {

void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const dnnl_status_t status =
      dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  QN_ASSERT(status == dnnl_success, "dnnl_sgemm {}x{}x{}: status {}", m, n, k, static_cast<int>(status));
}

void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
#pragma omp parallel for schedule(static) if (m * n * k > 65536)
  for (int64_t i = 0; i < m; ++i) {
    double* row = c + i * ldc;
    for (int64_t j = 0; j < n; ++j) row[j] = beta == 0.0 ? 0.0 : beta * row[j];
    for (int64_t l = 0; l < k; ++l) {
      const double s = alpha * (transpose_a ? a[l * lda + i] : a[i * lda + l]);
      if (transpose_b)
        for (int64_t j = 0; j < n; ++j) row[j] += s * b[j * ldb + l];
      else
        for (int64_t j = 0; j < n; ++j) row[j] += s * b[l * ldb + j];
    }
  }
}

void matmul(const MatmulArgs& args) {
  QN_ASSERT(args.dtype_c == args.dtype);
  if (args.m == 0 || args.n == 0) return;
  dispatch_float(args.dtype, [&](auto tag) {
    using T = decltype(tag);
    gemm(args.transpose_a, args.transpose_b, args.m, args.n, args.k, static_cast<T>(args.alpha),
         static_cast<const T*>(args.a), args.lda, static_cast<const T*>(args.b), args.ldb, static_cast<T>(args.beta),
         static_cast<T*>(args.c), args.ldc);
  });
}

}  // namespace qn::cpu
