// Product quantization in which every row of a weight has a scale of its own: k-means sees rows divided by their
// scales, decoded rows are multiplied by them. So a codebook holds directions and relative sizes, and not every size as
// well.
#pragma once

#include <span>
#include <vector>

#include "ops/kernels.h"
#include "quant/product_quantizer.h"

namespace qn {

/// What a k-means with row scales works on.
class ScaledRows {
 public:
  ScaledRows() = default;
  /// Of `weight` f32 [rows, cols], in the memory of `kernels`. A row's scale is its root mean square over that of all
  /// rows, so that blocks are as large as before on the average; 0 where the row is as good as zero (2^-30 of the
  /// largest). The same on every backend, bit for bit. Importances [rows] of the weight's squared errors may be empty.
  ScaledRows(const Kernels& kernels, const Tensor& weight, std::span<const float> importance);

  const float* values() const { return values_.view().as<float>(); }  ///< [rows, cols], divided by the scales
  /// [rows]: those of the weight times squared scales, so that k-means still counts errors of the weight itself.
  std::span<const float> importance() const { return importance_; }

 private:
  OwnedTensor values_;
  std::vector<float> importance_;
};

/// The scales [rows] with the least squared error between `weight` [rows, cols], on the host, and the decoded rows of
/// `table` times their scales; `column_importance` [cols] weighs columns (empty: all alike). 0 for rows that decode to
/// zeros.
std::vector<float> fitted_row_scales(const float* weight, const PqTable& table,
                                     std::span<const float> column_importance = {});

}  // namespace qn
