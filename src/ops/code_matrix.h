// Matrices that are kept as codes and multiplied as they are.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace qn {

/// A view of a matrix [rows, cols] that is held as packed codes (code i is bits [i * bits, (i + 1) * bits) of a
/// little-endian stream, as in files), in the memory of one backend. Two kinds:
/// - Product quantization (block > 0): code j * rows + r names the centroid that is columns [j * block, (j + 1) *
/// block)
///   of row r, times the row's scale where rows have some.
/// - A scalar grid (block == 0): code r * cols + c stands for (code - zero_point) * scale.
struct CodeMatrix {
  int64_t rows = 0, cols = 0;
  const uint8_t* codes = nullptr;  ///< kCodePadding more bytes may be read
  int bits = 8;                    ///< 1 to 16 of blocks, 2 to 8 of a grid

  int64_t block = 0, levels = 0;            ///< d and K; every code is below K
  const float* centroids = nullptr;         ///< [levels, block]
  double largest_norm = 0.0;                ///< at least that of every centroid; on the host
  const uint8_t* row_scales = nullptr;      ///< [rows], places in the table of values; null: none
  const float* row_scale_values = nullptr;  ///< [256]

  const float *scales = nullptr, *zero_points = nullptr;  ///< of a grid: one, or one per row; zero points are whole
  bool grid_per_row = false;

  int64_t blocks() const { return block > 0 ? cols / block : cols; }
};

inline constexpr int64_t kCodePadding = 64;

/// y[:, column .. column + rows) = x W^T with x [m, cols]; transposed: y[:, column .. column + cols) = x W with x
/// [m, rows]. x and y T.
struct CodeMatmulArgs {
  CodeMatrix weight;
  Tensor x, y;
  int64_t column = 0;
  bool transposed = false;
};

}  // namespace qn
