// Tiles of products of fp32 matrices: for files that have set the target, QN_ISA and, in namespace QN_ISA, Lanes:
// a vector, how many rows a tile has, and how to load, store and multiply.
#include <utility>

#include "ops/cpu/gemm_variants.h"

namespace qn::cpu::QN_ISA {
namespace {

using Vector = Lanes::Vector;
constexpr int kLanes = Lanes::kLanes, kRows = Lanes::kRows, kCols = 2 * kLanes;
constexpr int64_t kLineFloats = 16;  // of a cache line

/// Rows 0 .. R - 1 and all columns of a panel; `cols` of them are C's.
template <int R>
void tile(const GemmBlock& block, const float* a, const float* b, float* c, int64_t cols) {
  for (int r = 0; r < R; ++r) {  // there by the time that the sums are
    __builtin_prefetch(c + r * block.ldc, 1);
    __builtin_prefetch(c + r * block.ldc + kCols - 1, 1);
  }
  Vector sums[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Lanes::all(0.0f);
  // One pointer for three rows: as many addresses as an instruction can make of two registers.
  constexpr int kPointers = (R + 2) / 3;
  const int64_t row_stride = block.row_stride, depth_stride = block.depth_stride;
  const float* rows[kPointers];
#pragma GCC unroll 8
  for (int p = 0; p < kPointers; ++p) rows[p] = a + 3 * p * row_stride;
#pragma GCC unroll 4
  for (int64_t l = 0; l < block.depth; ++l, b += kCols) {
    const Vector b0 = Lanes::load(b), b1 = Lanes::load(b + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector x = Lanes::repeat(rows[r / 3] + (r % 3) * row_stride);
      sums[r][0] = Lanes::add_product(sums[r][0], x, b0);
      sums[r][1] = Lanes::add_product(sums[r][1], x, b1);
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPointers; ++p) rows[p] += depth_stride;
  }
  const Vector alpha = Lanes::all(block.alpha);
  if (cols == kCols) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        float* to = c + r * block.ldc + half * kLanes;
        const Vector sum = sums[r][half];
        Lanes::store(to, block.add ? Lanes::add_product(Lanes::load(to), sum, alpha) : sum * alpha);
      }
    return;
  }
  alignas(64) float stored[R][kCols];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) Lanes::store(&stored[r][half * kLanes], sums[r][half]);
  for (int r = 0; r < R; ++r) {
    float* to = c + r * block.ldc;
    for (int64_t j = 0; j < cols; ++j)
      to[j] = block.add ? __builtin_fmaf(stored[r][j], block.alpha, to[j]) : stored[r][j] * block.alpha;
  }
}

using Tile = void (*)(const GemmBlock&, const float*, const float*, float*, int64_t);

template <int... R>
Tile tile_of(int64_t rows, std::integer_sequence<int, R...>) {
  static constexpr Tile kTiles[] = {&tile<R + 1>...};
  return kTiles[rows - 1];
}

/// Of the next group of rows, the part that belongs to the panel at column j.
inline void prefetch_part(const GemmBlock& block, const float* group, int64_t j) {
  const int64_t panels = (block.cols + kCols - 1) / kCols, panel = j / kCols;
  const int64_t first = block.depth * panel / panels, last = block.depth * (panel + 1) / panels;
  if (block.depth_stride == 1) {
    for (int r = 0; r < kRows; ++r)
      for (int64_t l = first; l < last; l += kLineFloats) __builtin_prefetch(group + r * block.row_stride + l);
  } else {
    for (int64_t l = first; l < last; ++l) __builtin_prefetch(group + l * block.depth_stride + kRows - 1);
  }
}

void multiply(const GemmBlock& block) {
  for (int64_t i = 0; i < block.rows; i += kRows) {
    const int64_t rows = block.rows - i < kRows ? block.rows - i : kRows;
    const Tile compute = tile_of(rows, std::make_integer_sequence<int, kRows>{});
    const float *a = block.a + i / kRows * block.group_stride, *b = block.b;
    const float* next = i + kRows < block.rows ? a + block.group_stride : a;
    for (int64_t j = 0; j < block.cols; j += kCols, b += block.panel_stride) {
      prefetch_part(block, next, j);
      compute(block, a, b, block.c + i * block.ldc + j, block.cols - j < kCols ? block.cols - j : kCols);
    }
  }
}

/// to[l * kCols + j] = from[j * ld + l] for 8 x 8 elements
void transpose_eight(float* to, const float* from, int64_t ld) {
  __m256 rows[8], pairs[8], quads[8];
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) rows[j] = _mm256_loadu_ps(from + j * ld);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    pairs[2 * j] = _mm256_unpacklo_ps(rows[2 * j], rows[2 * j + 1]);
    pairs[2 * j + 1] = _mm256_unpackhi_ps(rows[2 * j], rows[2 * j + 1]);
  }
#pragma GCC unroll 2
  for (int j = 0; j < 8; j += 4)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      quads[j + 2 * h] = _mm256_shuffle_ps(pairs[j + h], pairs[j + h + 2], 0x44);
      quads[j + 2 * h + 1] = _mm256_shuffle_ps(pairs[j + h], pairs[j + h + 2], 0xEE);
    }
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) {
    _mm256_storeu_ps(to + l * kCols, _mm256_permute2f128_ps(quads[l], quads[l + 4], 0x20));
    _mm256_storeu_ps(to + (l + 4) * kCols, _mm256_permute2f128_ps(quads[l], quads[l + 4], 0x31));
  }
}

void pack_transposed(float* to, const float* b, int64_t ldb, int64_t depth, int64_t cols) {
  int64_t j = 0;
  for (; j + 8 <= cols; j += 8) {
    int64_t l = 0;
    for (; l + 8 <= depth; l += 8) transpose_eight(to + l * kCols + j, b + j * ldb + l, ldb);
    for (; l < depth; ++l)
      for (int64_t i = j; i < j + 8; ++i) to[l * kCols + i] = b[i * ldb + l];
  }
  for (; j < kCols; ++j)
    for (int64_t l = 0; l < depth; ++l) to[l * kCols + j] = j < cols ? b[j * ldb + l] : 0.0f;
}

void pack_panel(float* to, const float* b, int64_t ldb, bool transposed, int64_t depth, int64_t cols) {
  if (transposed) return pack_transposed(to, b, ldb, depth, cols);
  for (int64_t l = 0; l < depth; ++l, to += kCols, b += ldb) {
    if (cols == kCols) {
      Lanes::store(to, Lanes::load(b));
      Lanes::store(to + kLanes, Lanes::load(b + kLanes));
    } else {
      for (int64_t j = 0; j < kCols; ++j) to[j] = j < cols ? b[j] : 0.0f;
    }
  }
}

void pack_rows(float* to, const float* a, int64_t lda, int64_t rows, int64_t depth) {
  for (int64_t l = 0; l < depth; ++l, a += lda) {
    int64_t i = 0;
    float* into = to + l * kRows;
    for (; i + kRows <= rows; i += kRows, into += depth * kRows) Lanes::copy_rows(into, a + i);
    for (int64_t r = i; r < rows; ++r) into[r - i] = a[r];
  }
}

}  // namespace
}  // namespace qn::cpu::QN_ISA
