// The matrix products of one attention head, whose operands are used for all blocks of queries: in general by gemm(),
// in fp32 by tiles from operands that are packed once, without what queries do not see.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/cpu/gemm.h"
#include "ops/cpu/gemm_variants.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {

/// Rows [r] of head columns: element c of row r is data[r * ld + c].
template <typename P>
struct HeadMatrix {
  const P* data;
  int64_t ld;
};

/// What the products are of.
template <typename P>
struct HeadShape {
  HeadMatrix<P> k, v;  ///< [keys, dim]
  int64_t keys, dim;
  bool causal;  ///< query i sees keys 0 .. i only

  /// Keys that any of `count` queries from `first` on sees.
  int64_t seen(int64_t first, int64_t count) const { return causal ? first + count : keys; }
};

/// Queries of a block, and the matrix of a number for each of them and each key: [count, seen keys], of which hidden
/// ones are zeros where the matrix is an operand, and anything where it is a result.
struct QueryBlock {
  int64_t first, count;
  int64_t ld;  ///< of that matrix
};

enum class HeadOperand : uint8_t { k, v };

template <typename P>
class GemmProducts {
 public:
  /// The forward needs times_transposed(k) and times(v), the backward times_transposed() of both and times(k).
  void begin(const HeadShape<P>& head, bool /*backward*/) { head_ = head; }
  static int64_t row_of_keys(int64_t keys) { return keys; }

  /// s = scale * x B^T, x [count, dim]
  void times_transposed(P* s, const QueryBlock& block, P scale, const P* x, int64_t ldx, HeadOperand b) {
    const HeadMatrix<P>& m = operand(b);
    gemm(false, true, block.count, head_.seen(block.first, block.count), head_.dim, scale, x, ldx, m.data, m.ld, P{0},
         s, block.ld);
  }
  /// y = scale * s B, y [count, dim]
  void times(P* y, int64_t ldy, P scale, const P* s, const QueryBlock& block, HeadOperand b) {
    const HeadMatrix<P>& m = operand(b);
    gemm(false, false, block.count, head_.dim, head_.seen(block.first, block.count), scale, s, block.ld, m.data, m.ld,
         P{0}, y, ldy);
  }
  /// y = (add ? y : 0) + scale * s^T x, y [seen keys, dim], x [count, dim]
  void transposed_times(P* y, int64_t ldy, bool add, P scale, const P* s, const QueryBlock& block, const P* x,
                        int64_t ldx) {
    gemm(true, false, head_.seen(block.first, block.count), head_.dim, block.count, scale, s, block.ld, x, ldx,
         add ? P{1} : P{0}, y, ldy);
  }

 private:
  const HeadMatrix<P>& operand(HeadOperand b) const { return b == HeadOperand::k ? head_.k : head_.v; }
  HeadShape<P> head_{};
};

/// The same by tiles; see gemm_variants.h.
class TiledProducts {
 public:
  /// Of a row of s: whole panels fit, and rows do not lie in the same sets of a cache.
  int64_t row_of_keys(int64_t keys) const { return padded(keys) + 16; }

  /// With the tiles of a variant from now on.
  void use(const GemmVariant& variant) { variant_ = variant; }

  void begin(const HeadShape<float>& head, bool backward) {
    head_ = head;
    panels_ = (head.dim + variant_.cols - 1) / variant_.cols;
    pack_transposed(transposed_[0], head.k);
    if (backward) pack_transposed(transposed_[1], head.v);
    backward ? pack(plain_[0], head.k, head.keys) : pack(plain_[1], head.v, head.keys);
  }

  void times_transposed(float* s, const QueryBlock& block, float scale, const float* x, int64_t ldx, HeadOperand b) {
    GemmBlock tiles{.depth = head_.dim,
                    .row_stride = ldx,
                    .depth_stride = 1,
                    .b = line(transposed_[index(b)]),
                    .panel_stride = head_.dim * variant_.cols,
                    .ldc = block.ld,
                    .alpha = scale};
    for_each_group(block.count, [&](int64_t i, int64_t rows) {
      tiles.rows = rows;
      tiles.cols = padded(head_.seen(block.first + i, rows));
      tiles.a = x + i * ldx;
      tiles.c = s + i * block.ld;
      variant_.multiply(tiles);
    });
  }
  void times(float* y, int64_t ldy, float scale, const float* s, const QueryBlock& block, HeadOperand b) {
    GemmBlock tiles{.cols = head_.dim,
                    .row_stride = block.ld,
                    .depth_stride = 1,
                    .b = line(plain_[index(b)]),
                    .panel_stride = head_.keys * variant_.cols,
                    .ldc = ldy,
                    .alpha = scale};
    for_each_group(block.count, [&](int64_t i, int64_t rows) {
      tiles.rows = rows;
      tiles.depth = head_.seen(block.first + i, rows);
      tiles.a = s + i * block.ld;
      tiles.c = y + i * ldy;
      variant_.multiply(tiles);
    });
  }
  void transposed_times(float* y, int64_t ldy, bool add, float scale, const float* s, const QueryBlock& block,
                        const float* x, int64_t ldx) {
    pack(block_, {x, ldx}, block.count);
    GemmBlock tiles{.cols = head_.dim,
                    .row_stride = 1,
                    .depth_stride = block.ld,
                    .panel_stride = block.count * variant_.cols,
                    .ldc = ldy,
                    .alpha = scale,
                    .add = add};
    for_each_group(head_.seen(block.first, block.count), [&](int64_t key, int64_t rows) {
      const int64_t unseeing = head_.causal ? std::max<int64_t>(0, key - block.first) : 0;  // queries before the key
      tiles.rows = rows;
      tiles.depth = block.count - unseeing;
      tiles.a = s + unseeing * block.ld + key;
      tiles.b = line(block_) + unseeing * variant_.cols;
      tiles.c = y + key * ldy;
      variant_.multiply(tiles);
    });
  }

 private:
  static size_t index(HeadOperand b) { return b == HeadOperand::k ? 0 : 1; }
  int64_t padded(int64_t n) const { return (n + variant_.cols - 1) / variant_.cols * variant_.cols; }
  static float* line(std::vector<float>& room) { return lines_at_least(room, 0); }

  template <typename F>
  void for_each_group(int64_t rows, const F& f) const {
    for (int64_t i = 0; i < rows; i += variant_.rows) f(i, std::min(variant_.rows, rows - i));
  }
  /// The transpose of x [keys, dim], panels of keys.
  void pack_transposed(std::vector<float>& room, const HeadMatrix<float>& x) const {
    float* to = lines_at_least(room, padded(head_.keys) * head_.dim);
    for (int64_t key = 0; key < head_.keys; key += variant_.cols, to += head_.dim * variant_.cols)
      variant_.pack_panel(to, x.data + key * x.ld, x.ld, true, head_.dim, std::min(variant_.cols, head_.keys - key));
  }
  /// x [rows, dim], panels of columns.
  void pack(std::vector<float>& room, const HeadMatrix<float>& x, int64_t rows) const {
    float* to = lines_at_least(room, panels_ * variant_.cols * rows);
    for (int64_t p = 0; p < panels_; ++p, to += rows * variant_.cols)
      variant_.pack_panel(to, x.data + p * variant_.cols, x.ld, false, rows,
                          std::min(variant_.cols, head_.dim - p * variant_.cols));
  }

  GemmVariant variant_{};
  HeadShape<float> head_{};
  int64_t panels_ = 0;
  std::vector<float> transposed_[2], plain_[2], block_;  // of k, of v; of a block of queries
};

}  // namespace qn::cpu
