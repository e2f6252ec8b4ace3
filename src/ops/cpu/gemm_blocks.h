// Products of large fp32 matrices by our own tiles.
#pragma once

#include <cstdint>

namespace qn::cpu {

/// As gemm() of ops/cpu/gemm.h, where it is worth it; false: nothing was done. The bits of the result depend neither on
/// the number of threads nor on the instruction set.
bool gemm_by_blocks(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                    int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace qn::cpu
