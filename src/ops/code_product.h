// What every backend's product from codes begins with.
#pragma once

#include <utility>

#include "core/error.h"
#include "ops/code_matrix.h"

namespace qn {

/// Throws qn::InternalError unless x, the matrix of codes and y belong together as CodeMatmulArgs says.
inline void assert_shapes(const CodeMatmulArgs& a) {
  const CodeMatrix& w = a.weight;
  const auto [in, out] = a.transposed ? std::pair{w.rows, w.cols} : std::pair{w.cols, w.rows};
  QN_ASSERT(a.x.cols() == in && a.y.rows() == a.x.rows() && a.y.dtype == a.x.dtype && a.column + out <= a.y.cols(),
            "codes [{}, {}] on {}, results in {} from column {}", w.rows, w.cols, a.x.shape.to_string(),
            a.y.shape.to_string(), a.column);
}

}  // namespace qn
