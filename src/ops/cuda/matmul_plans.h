// Matrix products through cuBLASLt. Which algorithm suits a shape is asked once and remembered.
#pragma once

#include <cublasLt.h>

#include <atomic>
#include <compare>
#include <map>
#include <memory>

#include "ops/kernels.h"

namespace qn::cuda {

/// `count` products of the same shape; operand i is `stride` elements behind operand i - 1.
struct MatmulBatch {
  int64_t count = 1, stride_a = 0, stride_b = 0, stride_c = 0;
};

class MatmulPlans {
 public:
  MatmulPlans();
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  /// Queues the products on the stream. Accumulates in f32 (f64 for f64). Products of i8 into i32 are exact; they want
  /// B transposed, A not, and n, k and leading dimensions that are multiples of 4 (of 16 to be fast). Throws qn::Error
  /// when cuBLASLt has no algorithm for them.
  void run(const MatmulArgs& args, const MatmulBatch& batch, cudaStream_t stream);

  static void set_tf32(bool allow) { tf32 = allow; }
  static bool tf32_allowed() { return tf32; }

 private:
  /// Everything that an algorithm depends on. Alignments are those of the pointers, in bytes, at most 256.
  struct Key {
    DType dtype, dtype_c;
    bool transpose_a, transpose_b, tf32;
    int64_t m, n, k, lda, ldb, ldc, count, stride_a, stride_b, stride_c;
    uint32_t align_a, align_b, align_c;
    auto operator<=>(const Key&) const = default;
  };
  class Plan;
  static Key key_of(const MatmulArgs& args, const MatmulBatch& batch);
  const Plan& plan_for(const Key& key);

  static inline std::atomic<bool> tf32{false};
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

/// batch.count products on the calling thread's stream.
void batched_matmul(const MatmulArgs& args, const MatmulBatch& batch);

}  // namespace qn::cuda
