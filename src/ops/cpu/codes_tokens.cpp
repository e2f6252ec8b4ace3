#include "ops/cpu/codes_tokens.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "ops/cpu/codes_read.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {
namespace {

/// Rows that share a group's tables: their sums have to stay in the second-level cache.
constexpr int64_t kMostRows = 4096, kFewestRows = 256;
constexpr int64_t kTile = 16;  // of transpositions

/// What a thread works with, at addresses that are multiples of 64.
struct Scratch {
  std::vector<float> floats;
  std::vector<uint8_t> codes;
};
thread_local Scratch scratch;

int64_t rounded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// to [cols, tokens] = x [count, cols] transposed, filled up with zeros.
void transpose_inputs(const float* x, int64_t count, int64_t cols, int64_t tokens, float* to) {
  if (count < tokens) std::fill_n(to, cols * tokens, 0.0f);
  for (int64_t c0 = 0; c0 < cols; c0 += kTile)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) to[c * tokens + i] = x[i * cols + c];
}

/// y [count, rows] with leading dimension ld = sums [rows, tokens] transposed, times the rows' scales.
void store_sums(const CodeMatrix& w, int64_t first, int64_t rows, const float* sums, int64_t tokens, int64_t count,
                float* y, int64_t ld) {
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t end = std::min(rows, r0 + kTile);
    float scales[kTile];
    for (int64_t r = r0; r < end; ++r)
      scales[r - r0] = w.row_scales == nullptr ? 1.0f : w.row_scale_values[w.row_scales[first + r]];
    for (int64_t i = 0; i < count; ++i)
      for (int64_t r = r0; r < end; ++r) y[i * ld + r] = sums[r * tokens + i] * scales[r - r0];
  }
}

/// Rows [first, first + rows) for a group of `count` tokens: x and y are at its first token, y at row `first`.
void group_product(const CodesVariant& variant, const CodeMatrix& w, const ByteCodes& codes, int64_t first,
                   int64_t rows, int64_t count, const float* x, float* y, int64_t ld) {
  const int64_t tokens = variant.tokens, inputs = w.cols * tokens, tables = kTableBlocks * w.levels * tokens;
  float* at = at_least(scratch.floats, inputs + tables + rows * tokens + 16);
  at += -reinterpret_cast<uintptr_t>(at) % 64 / sizeof(float);
  float* sums = at + inputs + tables;
  transpose_inputs(x, count, w.cols, tokens, at);
  std::fill_n(sums, rows * tokens, 0.0f);
  variant.token_tables({.codes = codes.codes,
                        .stride = codes.stride,
                        .rows = rows,
                        .blocks = w.blocks(),
                        .block = w.block,
                        .levels = w.levels,
                        .centroids = w.centroids,
                        .x = at,
                        .tables = at + inputs,
                        .sums = sums});
  store_sums(w, first, rows, sums, tokens, count, y, ld);
}

}  // namespace

void product_by_token_tables(const CodesVariant& variant, const CodeMatmulArgs& a) {
  const CodeMatrix& w = a.weight;
  const int64_t m = a.x.rows(), groups = (m + variant.tokens - 1) / variant.tokens;
  // Threads share groups, or else rows; tables are then made by each.
  const int64_t share = rounded(w.rows * groups / omp_get_max_threads(), 64);
  const int64_t part_rows = std::clamp(share, kFewestRows, kMostRows), parts = (w.rows + part_rows - 1) / part_rows;
#pragma omp parallel if (parts * groups > 1)
  {
    int64_t have = -1;  // the part whose codes this thread has as bytes
    ByteCodes codes{};
#pragma omp for schedule(static)
    for (int64_t task = 0; task < parts * groups; ++task) {
      const int64_t part = task / groups, first = part * part_rows, rows = std::min(part_rows, w.rows - first);
      const int64_t token = task % groups * variant.tokens, count = std::min(variant.tokens, m - token);
      if (have != part) codes = byte_codes(w, first, rows, scratch.codes);
      have = part;
      group_product(variant, w, codes, first, rows, count, a.x.as<float>() + token * w.cols,
                    a.y.as<float>() + token * a.y.cols() + a.column + first, a.y.cols());
    }
  }
}

}  // namespace qn::cpu
