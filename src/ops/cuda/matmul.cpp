#include <algorithm>
#include <bit>

#include "ops/cuda/check.h"
#include "ops/cuda/context.h"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/matmul_plans.h"

namespace qn::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;  // what NVIDIA advises for Hopper

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f64:
      return CUDA_R_64F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    case DType::i8:
      return CUDA_R_8I;
    case DType::i32:
      return CUDA_R_32I;
    default:
      QN_ASSERT(false, "no matrix products of {}", name_of(dtype));
  }
}

/// How sums are computed, and the type of alpha and beta.
struct Arithmetic {
  cublasComputeType_t compute;
  cudaDataType_t scale;
};

Arithmetic arithmetic_of(DType dtype, bool tf32) {
  if (dtype == DType::f64) return {CUBLAS_COMPUTE_64F, CUDA_R_64F};
  if (dtype == DType::i8) return {CUBLAS_COMPUTE_32I, CUDA_R_32I};
  return {tf32 && dtype == DType::f32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F};
}

/// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* p) {
  return uint32_t{1} << std::min(8, std::countr_zero(reinterpret_cast<uintptr_t>(p)));
}

/// Of an address of which every `step` bytes another operand starts.
uint32_t alignment_of(const void* p, int64_t step) {
  return std::min(alignment_of(p), alignment_of(reinterpret_cast<const void*>(static_cast<uintptr_t>(step))));
}

template <typename T, auto Destroy>
struct Owned {
  T value = nullptr;
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (value != nullptr) Destroy(value);
  }
};
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <typename V>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, V value) {
  QN_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
}

/// A row-major [rows, cols] matrix is to cuBLASLt a column-major [cols, rows] one.
void make_layout(Layout& layout, DType dtype, int64_t rows, int64_t cols, int64_t ld, int64_t count, int64_t stride) {
  QN_CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout.value, data_type(dtype), static_cast<uint64_t>(cols),
                                             static_cast<uint64_t>(rows), ld));
  const auto batch = static_cast<int32_t>(count);
  QN_CUBLAS_CHECK(
      cublasLtMatrixLayoutSetAttribute(layout.value, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
  QN_CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(layout.value, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                   sizeof stride));
}

}  // namespace

/// C = op(A) op(B), row-major, is C^T = op(B)^T op(A)^T, column-major: B comes first, and the transposes stay.
class MatmulPlans::Plan {
 public:
  Plan(cublasLtHandle_t handle, const Key& key);

  void run(cublasLtHandle_t handle, const MatmulArgs& args, void* workspace, cudaStream_t stream) const {
    if (args.dtype == DType::f64) return run_scaled<double>(handle, args, workspace, stream);
    if (args.dtype == DType::i8) return run_scaled<int32_t>(handle, args, workspace, stream);
    run_scaled<float>(handle, args, workspace, stream);
  }

 private:
  template <typename Scale>
  void run_scaled(cublasLtHandle_t handle, const MatmulArgs& args, void* workspace, cudaStream_t stream) const {
    const Scale alpha = static_cast<Scale>(args.alpha), beta = static_cast<Scale>(args.beta);
    QN_CUBLAS_CHECK(cublasLtMatmul(handle, description_.value, &alpha, args.b, b_.value, args.a, a_.value, &beta,
                                   args.c, c_.value, args.c, c_.value, &algorithm_, workspace, kWorkspace, stream));
  }

  Layout a_, b_, c_;
  Description description_;
  cublasLtMatmulAlgo_t algorithm_{};
};

MatmulPlans::Plan::Plan(cublasLtHandle_t handle, const Key& key) {
  const auto [a_rows, a_cols] = key.transpose_a ? std::pair{key.k, key.m} : std::pair{key.m, key.k};
  const auto [b_rows, b_cols] = key.transpose_b ? std::pair{key.n, key.k} : std::pair{key.k, key.n};
  make_layout(a_, key.dtype, a_rows, a_cols, key.lda, key.count, key.stride_a);
  make_layout(b_, key.dtype, b_rows, b_cols, key.ldb, key.count, key.stride_b);
  make_layout(c_, key.dtype_c, key.m, key.n, key.ldc, key.count, key.stride_c);

  const auto [compute, scale] = arithmetic_of(key.dtype, key.tf32);
  QN_CUBLAS_CHECK(cublasLtMatmulDescCreate(&description_.value, compute, scale));
  const auto transpose = [&](cublasLtMatmulDescAttributes_t attribute, bool yes) {
    const cublasOperation_t op = yes ? CUBLAS_OP_T : CUBLAS_OP_N;
    QN_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(description_.value, attribute, &op, sizeof op));
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_b);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_a);

  Preference preference;
  QN_CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference.value));
  set(preference.value, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspace});
  // Parts of a sum over k may be computed apart (split-K); added up they are in the type of the sums, not in C's.
  set(preference.value, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference.value, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.align_b);
  set(preference.value, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.align_a);
  set(preference.value, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.align_c);
  set(preference.value, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.align_c);

  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, description_.value, b_.value, a_.value, c_.value,
                                                               c_.value, preference.value, 1, &result, &found);
  QN_CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0,
           "cuBLASLt has no algorithm for {} products [{}, {}] x [{}, {}] of {} into {} (leading dimensions {}, {}, "
           "{}): {}",
           key.count, key.m, key.k, key.k, key.n, name_of(key.dtype), name_of(key.dtype_c), key.lda, key.ldb, key.ldc,
           cublasLtGetStatusName(status));
  algorithm_ = result.algo;
}

MatmulPlans::MatmulPlans() : workspace_(kWorkspace, device_memory()) { QN_CUBLAS_CHECK(cublasLtCreate(&handle_)); }

MatmulPlans::~MatmulPlans() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

MatmulPlans::Key MatmulPlans::key_of(const MatmulArgs& args, const MatmulBatch& batch) {
  const auto in = static_cast<int64_t>(size_of(args.dtype)), out = static_cast<int64_t>(size_of(args.dtype_c));
  return {.dtype = args.dtype,
          .dtype_c = args.dtype_c,
          .transpose_a = args.transpose_a,
          .transpose_b = args.transpose_b,
          .tf32 = tf32,
          .m = args.m,
          .n = args.n,
          .k = args.k,
          .lda = args.lda,
          .ldb = args.ldb,
          .ldc = args.ldc,
          .count = batch.count,
          .stride_a = batch.stride_a,
          .stride_b = batch.stride_b,
          .stride_c = batch.stride_c,
          .align_a = alignment_of(args.a, batch.stride_a * in),
          .align_b = alignment_of(args.b, batch.stride_b * in),
          .align_c = alignment_of(args.c, batch.stride_c * out)};
}

const MatmulPlans::Plan& MatmulPlans::plan_for(const Key& key) {
  std::unique_ptr<Plan>& plan = plans_[key];
  if (!plan) plan = std::make_unique<Plan>(handle_, key);
  return *plan;
}

void MatmulPlans::run(const MatmulArgs& args, const MatmulBatch& batch, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0 || batch.count == 0) return;
  QN_ASSERT(args.k > 0, "an empty sum in a matrix product");
  plan_for(key_of(args, batch)).run(handle_, args, workspace_.data(), stream);
}

void batched_matmul(const MatmulArgs& args, const MatmulBatch& batch) {
  Context& context = Context::current();
  context.matmul_plans().run(args, batch, context.stream());
}

void matmul(const MatmulArgs& args) { batched_matmul(args, {}); }

}  // namespace qn::cuda
