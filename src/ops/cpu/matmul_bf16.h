// Products of bf16 matrices.
#pragma once

#include "ops/kernels.h"

namespace qn::cpu {

/// As Kernels::matmul for dtype bf16 and dtype_c bf16 or f32; alpha must be 1.
void matmul_bf16(const MatmulArgs& args);

/// How matmul_bf16 computes on processors with and without instructions for it; tests compare the two.
void matmul_bf16_native(const MatmulArgs& args);     ///< oneDNN, which emulates where it must: then it is slow
void matmul_bf16_converted(const MatmulArgs& args);  ///< in float, on converted copies

}  // namespace qn::cpu
