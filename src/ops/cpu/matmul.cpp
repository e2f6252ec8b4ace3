#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/gemm_blocks.h"
#include "ops/cpu/matmul_bf16.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {
namespace {

void sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
           int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const dnnl_status_t status =
      dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  QN_ASSERT(status == dnnl_success, "dnnl_sgemm {}x{}x{}: status {}", m, n, k, static_cast<int>(status));
}

/// The elements of a column lie in one set of the first-level cache: reading along it evicts what was just read.
bool column_thrashes(int64_t leading_dimension) { return leading_dimension * sizeof(float) % 4096 == 0; }

/// c[n, m] = beta * c + x^T, x [m, n]
void add_transposed(const float* x, int64_t m, int64_t n, float beta, float* c, int64_t ldc) {
  constexpr int64_t kTile = 16;
#pragma omp parallel for schedule(static) if (m * n > 16384)
  for (int64_t j0 = 0; j0 < n; j0 += kTile) {
    const int64_t width = std::min(kTile, n - j0);
    for (int64_t i0 = 0; i0 < m; i0 += kTile) {
      const int64_t height = std::min(kTile, m - i0);
      float tile[kTile][kTile];
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j) tile[j][i] = x[(i0 + i) * n + j0 + j];
      for (int64_t j = 0; j < width; ++j) {
        float* row = c + (j0 + j) * ldc + i0;
        for (int64_t i = 0; i < height; ++i) row[i] = (beta == 0.0f ? 0.0f : beta * row[i]) + tile[j][i];
      }
    }
  }
}

}  // namespace

void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (gemm_by_blocks(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)) return;
  // oneDNN packs A^T column by column. C^T = B^T A reads A along its rows instead: nearly twice as fast, with the extra
  // transposition, for the weight gradient of a feed-forward block of 1024.
  if (!transpose_a || transpose_b || !column_thrashes(lda) || column_thrashes(ldb))
    return sgemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  static thread_local std::vector<float> scratch;
  if (scratch.size() < static_cast<size_t>(m * n)) scratch.resize(static_cast<size_t>(m * n));
  sgemm(true, false, n, m, k, alpha, b, ldb, a, lda, 0.0f, scratch.data(), m);
  add_transposed(scratch.data(), n, m, beta, c, ldc);
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
  if (args.m == 0 || args.n == 0) return;
  if (args.dtype == DType::bf16) return matmul_bf16(args);
  QN_ASSERT(args.dtype_c == args.dtype);
  dispatch_parameter(args.dtype, [&](auto tag) {
    using T = decltype(tag);
    gemm(args.transpose_a, args.transpose_b, args.m, args.n, args.k, static_cast<T>(args.alpha),
         static_cast<const T*>(args.a), args.lda, static_cast<const T*>(args.b), args.ldb, static_cast<T>(args.beta),
         static_cast<T*>(args.c), args.ldc);
  });
}

}  // namespace qn::cpu
