// Matrices of codes as dense ones, some rows at a time.
#pragma once

#include "ops/cpu/parallel.h"

namespace qn::cpu {

/// w [last - first, cols], contiguous, = rows [first, last) of the matrix. W is float, double or bfloat16; values are
/// computed in ParameterOf<W> and rounded once.
template <typename W>
void decode_rows(W* w, const CodeMatrix& m, int64_t first, int64_t last);

}  // namespace qn::cpu
