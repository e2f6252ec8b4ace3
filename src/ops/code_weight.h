// The owner of a matrix that is kept as codes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/kernels.h"

namespace qn {

/// In the memory of `kernels`, whose from_codes must be set, and of little more than the codes' size. Everything that
/// is passed is on the host and copied.
class CodeWeight {
 public:
  CodeWeight() = default;
  /// Product quantization: packed codes of a matrix [rows, cols], `centroids` [levels, block]; see CodeMatrix. Codes
  /// below `levels` are the caller's business.
  struct Blocks {
    int64_t rows, cols, block, levels;
    int bits;
    std::span<const std::byte> codes;
    std::span<const float> centroids;
    std::span<const uint8_t> row_scales = {};      ///< [rows], or none
    std::span<const float> row_scale_values = {};  ///< [256] beside them
  };
  CodeWeight(const Kernels& kernels, const Blocks& blocks);
  /// A scalar grid: scales and zero points are one each, or one per row.
  struct Grid {
    int64_t rows, cols;
    int bits;
    std::span<const std::byte> codes;
    std::span<const float> scales, zero_points;
  };
  CodeWeight(const Kernels& kernels, const Grid& grid);

  const CodeMatrix& view() const { return view_; }
  /// The packed codes, without padding, in the backend's memory.
  std::span<const std::byte> codes() const { return {codes_.data(), codes_.size() - kCodePadding}; }
  size_t bytes() const;  ///< of memory

 private:
  void keep_codes(const Kernels& kernels, std::span<const std::byte> codes, int64_t count, int bits);

  CodeMatrix view_;
  Buffer codes_;
  std::vector<Buffer> values_;
};

}  // namespace qn
