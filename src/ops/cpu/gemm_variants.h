// Products of fp32 matrices: the parts that are compiled once per instruction set. All sets add the products of an
// element in the same order with the same fused operations, so they give the same bits, whoever computes what.
#pragma once

#include <cstdint>
#include <span>

namespace qn::cpu {

/// A block of C [rows, cols] = alpha * A B, or C + alpha * A B with `add`. Element (i, l) of A is
/// a[i / R * group_stride + i % R * row_stride + l * depth_stride], R being the rows of a tile. B lies in panels of as
/// many columns as a tile has, `panel_stride` floats apart: [depth, columns of a tile], filled up with zeros.
struct GemmBlock {
  int64_t rows = 0, cols = 0, depth = 0;
  const float* a = nullptr;
  int64_t group_stride = 0, row_stride = 0, depth_stride = 0;
  const float* b = nullptr;  ///< aligned to 64 bytes
  int64_t panel_stride = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  float alpha = 1.0f;
  bool add = false;
};

struct GemmVariant {
  const char* name;
  int64_t rows, cols;  ///< of a tile, whose sums stay in registers
  bool packs_columns;  ///< whether reading along the columns of A is to be avoided by pack_rows
  void (*multiply)(const GemmBlock& block);
  /// A panel of B [depth, cols] (`cols` at most those of a tile), B being `b` or, if `transposed`, its transpose.
  void (*pack_panel)(float* to, const float* b, int64_t ldb, bool transposed, int64_t depth, int64_t cols);
  /// Groups of A [rows, depth], the transpose of `a`: [rows of a tile] for every l, row_stride 1.
  void (*pack_rows)(float* to, const float* a, int64_t lda, int64_t rows, int64_t depth);
};

/// Those that this processor has and oneDNN may use (ONEDNN_MAX_CPU_ISA), fastest first; none without AVX2.
std::span<const GemmVariant* const> gemm_variants();
/// The one that the kernels use, or null; another one for tests (null: the fastest again), while no kernel runs.
const GemmVariant* gemm_variant();
void use_gemm_variant(const GemmVariant* variant);

}  // namespace qn::cpu
