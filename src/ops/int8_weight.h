// A quantized weight that is multiplied as it is, in integers.
#pragma once

#include "ops/kernels.h"

namespace qn {

/// Codes of up to 8 bits [n, k] with their grid, laid out for the int8 products of one backend: a byte per weight (rows
/// and columns filled up to multiples of 32 and 16), twelve per row.
class Int8Weight {
 public:
  Int8Weight() = default;
  /// `codes` is u8 [n, k]; `scale` and `zero_point` are f32, [1] or [n]; code c of row j stands for
  /// scale[j] * (c - zero_point[j]), and zero points are whole numbers. All are in the memory of `kernels` and are not
  /// needed afterwards. Throws qn::Error when there are more than kMostInt8Columns columns.
  Int8Weight(const Kernels& kernels, const Tensor& codes, const Tensor& scale, const Tensor& zero_point);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  size_t bytes() const { return packed_.size() + scales_.view().bytes() + zero_points_.view().bytes(); }

  /// The weight's part of a product with x; the caller adds x, its grid and y.
  Int8MatmulArgs product() const;

 private:
  int64_t rows_ = 0, cols_ = 0;
  Buffer packed_;
  OwnedTensor scales_, zero_points_;
};

}  // namespace qn
