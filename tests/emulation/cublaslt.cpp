// Matrix products of cuBLASLt on the emulated device: column-major, strided batches, sums in double.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "streams.h"

using namespace qn::emulation;

namespace {

struct Layout {
  cudaDataType_t type;
  int64_t rows, cols, ld;
  int32_t batch = 1;
  int64_t stride = 0;
};

/// How cuBLASLt may reduce by default: any way, in the type of C, too.
struct Preference {
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
};

struct Description {
  cudaDataType_t scale;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};

double get(const void* p, cudaDataType_t type, int64_t i) {
  switch (type) {
    case CUDA_R_32F:
      return static_cast<const float*>(p)[i];
    case CUDA_R_64F:
      return static_cast<const double*>(p)[i];
    case CUDA_R_16BF:
      return static_cast<float>(static_cast<const __nv_bfloat16*>(p)[i]);
    case CUDA_R_16F:
      return static_cast<float>(static_cast<const __half*>(p)[i]);
    case CUDA_R_8I:
      return static_cast<const int8_t*>(p)[i];
    case CUDA_R_32I:
      return static_cast<const int32_t*>(p)[i];
    default:
      refuse("a matrix of this type");
  }
}

void put(void* p, cudaDataType_t type, int64_t i, double v) {
  switch (type) {
    case CUDA_R_32F:
      static_cast<float*>(p)[i] = static_cast<float>(v);
      return;
    case CUDA_R_64F:
      static_cast<double*>(p)[i] = v;
      return;
    case CUDA_R_16BF:
      static_cast<__nv_bfloat16*>(p)[i] = __nv_bfloat16(static_cast<float>(v));
      return;
    case CUDA_R_16F:
      static_cast<__half*>(p)[i] = __half(static_cast<float>(v));
      return;
    case CUDA_R_32I:
      static_cast<int32_t*>(p)[i] = static_cast<int32_t>(v);
      return;
    default:
      refuse("a matrix of this type");
  }
}

/// An operand as op(matrix).
struct Operand {
  const void* data;
  Layout layout;
  bool transposed;

  int64_t rows() const { return transposed ? layout.cols : layout.rows; }
  int64_t cols() const { return transposed ? layout.rows : layout.cols; }
  /// op(matrix) of a batch in double, or its transpose; row-major.
  std::vector<double> values(int64_t batch, bool transpose) const {
    const int64_t m = transpose ? cols() : rows(), n = transpose ? rows() : cols();
    std::vector<double> result;
    result.reserve(static_cast<size_t>(m * n));
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const int64_t offset = transpose == transposed ? i + j * layout.ld : j + i * layout.ld;
        result.push_back(get(data, layout.type, batch * layout.stride + offset));
      }
    return result;
  }
};

void multiply(const Operand& a, const Operand& b, void* out, const Layout& c, double alpha, double beta) {
  for (int64_t i = 0; i < c.batch; ++i) {
    const std::vector<double> x = a.values(i, false), y = b.values(i, true);
    const int64_t depth = a.cols();
    for (int64_t col = 0; col < c.cols; ++col)
      for (int64_t row = 0; row < c.rows; ++row) {
        const double sum =
            std::inner_product(x.begin() + row * depth, x.begin() + (row + 1) * depth, y.begin() + col * depth, 0.0);
        const int64_t at = i * c.stride + row + col * c.ld;
        put(out, c.type, at, alpha * sum + (beta != 0.0 ? beta * get(out, c.type, at) : 0.0));
      }
  }
}

/// What the documentation of cublasLtMatmul() asks of products of bytes in plain layouts.
bool suits_integers(const Operand& a, const Operand& b, const void* out, const Layout& c) {
  const auto multiple = [](int64_t n) { return n % 4 == 0; };
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 4 == 0; };
  return a.layout.type == CUDA_R_8I && b.layout.type == CUDA_R_8I && c.type == CUDA_R_32I && a.transposed &&
         !b.transposed && multiple(a.rows()) && multiple(a.cols()) && multiple(a.layout.ld) && multiple(b.layout.ld) &&
         multiple(c.ld) && aligned(a.data) && aligned(b.data) && aligned(out);
}

double scalar(const void* p, cudaDataType_t type) { return get(p, type, 0); }

}  // namespace

extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t) { return "an error of the emulated cuBLASLt"; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  if (ld < static_cast<int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  auto& l = *reinterpret_cast<Layout*>(layout);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof l.batch)
    l.batch = *static_cast<const int32_t*>(value);
  else if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof l.stride)
    l.stride = *static_cast<const int64_t*>(value);
  else
    return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t, cudaDataType_t scale) {
  *description = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete reinterpret_cast<Description*>(description);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  auto& d = *reinterpret_cast<Description*>(description);
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? d.a : d.b) = *static_cast<const cublasOperation_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  const size_t expected = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? sizeof(uint64_t) : sizeof(uint32_t);
  if (bytes != expected) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
    reinterpret_cast<Preference*>(preference)->reductions = *static_cast<const uint32_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}
/// Refuses to choose among algorithms that would add up parts of a sum in the type of C: no product here wants that.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t*, int* found) {
  const uint32_t reductions = reinterpret_cast<const Preference*>(preference)->reductions;
  *found = reductions == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ? 1 : 0;
  return *found != 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t layout_a, const void* b, cublasLtMatrixLayout_t layout_b,
                              const void* beta, const void* c, cublasLtMatrixLayout_t, void* out,
                              cublasLtMatrixLayout_t layout_c, const cublasLtMatmulAlgo_t*, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const auto& d = *reinterpret_cast<const Description*>(description);
  const Operand x{a, *reinterpret_cast<const Layout*>(layout_a), d.a == CUBLAS_OP_T};
  const Operand y{b, *reinterpret_cast<const Layout*>(layout_b), d.b == CUBLAS_OP_T};
  const Layout z = *reinterpret_cast<const Layout*>(layout_c);
  const bool fits = x.rows() == z.rows && y.cols() == z.cols && x.cols() == y.rows() && c == out;
  if (!fits || x.layout.batch != z.batch || y.layout.batch != z.batch) return CUBLAS_STATUS_INVALID_VALUE;
  if (d.scale == CUDA_R_32I && !suits_integers(x, y, out, z)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const double scale_x = scalar(alpha, d.scale), scale_z = scalar(beta, d.scale);
  enqueue(stream, [=] {
    multiply(x, y, out, z, scale_x, scale_z);
    std::memset(workspace, 0xee, std::min<size_t>(workspace_bytes, 4096));  // nobody must expect anything there
  });
  return CUBLAS_STATUS_SUCCESS;
}
}
