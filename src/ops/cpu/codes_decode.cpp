#include "ops/cpu/codes_decode.h"

#include <algorithm>

#include "ops/cpu/codes_read.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/uniform_grid.h"

namespace qn::cpu {
namespace {

constexpr int64_t kSerialBelow = 1 << 14;  // elements; smaller work does not pay for waking threads
// Codes of blocks run down a block column while weights run along a row; see pq_kernels.cpp.
constexpr int64_t kTileRows = 16, kTileBlocks = 64;

template <typename P>
P scale_of(const CodeMatrix& m, int64_t r) {
  return m.row_scales == nullptr ? P{1} : static_cast<P>(m.row_scale_values[m.row_scales[r]]);
}

template <typename P>
UniformGrid<P> grid_of(const CodeMatrix& m, int64_t r) {
  const int64_t i = m.grid_per_row ? r : 0;
  return {static_cast<P>(m.scales[i]), static_cast<P>(m.zero_points[i]), static_cast<P>(last_code(m.bits))};
}

/// D is the block size when known at compile time, else 0.
template <int64_t D, typename W, typename Reader>
void decode_blocks(W* w, const CodeMatrix& m, const Reader& codes, int64_t first, int64_t last) {
  using P = ParameterOf<W>;
  const int64_t d = D > 0 ? D : m.block, blocks = m.blocks(), rows = last - first;
  const int64_t row_tiles = (rows + kTileRows - 1) / kTileRows, column_tiles = (blocks + kTileBlocks - 1) / kTileBlocks;
#pragma omp parallel for collapse(2) schedule(static) if (rows * m.cols >= kSerialBelow)
  for (int64_t rt = 0; rt < row_tiles; ++rt)
    for (int64_t ct = 0; ct < column_tiles; ++ct)
      for (int64_t j = ct * kTileBlocks; j < std::min(blocks, (ct + 1) * kTileBlocks); ++j)
        for (int64_t r = rt * kTileRows; r < std::min(rows, (rt + 1) * kTileRows); ++r) {
          const float* from = m.centroids + static_cast<int64_t>(codes[j * m.rows + first + r]) * d;
          W* to = w + r * m.cols + j * d;
          const P scale = scale_of<P>(m, first + r);
#pragma omp simd
          for (int64_t t = 0; t < d; ++t) to[t] = static_cast<W>(scale * static_cast<P>(from[t]));
        }
}

template <typename W, typename Reader>
void decode_grid(W* w, const CodeMatrix& m, const Reader& codes, int64_t first, int64_t last) {
  using P = ParameterOf<W>;
  parallel_rows(last - first, m.cols, [&](int64_t r) {
    const UniformGrid<P> grid = grid_of<P>(m, first + r);
    const int64_t begin = (first + r) * m.cols;
    for (int64_t c = 0; c < m.cols; ++c)
      w[r * m.cols + c] = static_cast<W>(grid.level(static_cast<P>(codes[begin + c])));
  });
}

}  // namespace

template <typename W>
void decode_rows(W* w, const CodeMatrix& m, int64_t first, int64_t last) {
  with_reader(m, [&](const auto& codes) {
    if (m.block == 0) return decode_grid(w, m, codes, first, last);
    switch (m.block) {
      case 4:
        return decode_blocks<4>(w, m, codes, first, last);
      case 8:
        return decode_blocks<8>(w, m, codes, first, last);
      case 16:
        return decode_blocks<16>(w, m, codes, first, last);
      default:
        return decode_blocks<0>(w, m, codes, first, last);
    }
  });
}
template void decode_rows(float*, const CodeMatrix&, int64_t, int64_t);
template void decode_rows(double*, const CodeMatrix&, int64_t, int64_t);
template void decode_rows(bfloat16*, const CodeMatrix&, int64_t, int64_t);

void decode_codes(const Tensor& w, const CodeMatrix& codes) {
  QN_ASSERT(w.rows() == codes.rows && w.cols() == codes.cols);
  dispatch_float(w.dtype, [&](auto tag) {
    using W = decltype(tag);
    decode_rows(w.as<W>(), codes, 0, codes.rows);
  });
}

void lookup_codes(const Tensor& y, const CodeMatrix& table, const int32_t* ids, double scale) {
  QN_ASSERT(y.cols() == table.cols);
  dispatch_float(y.dtype, [&](auto tag) {
    using Y = decltype(tag);
    using P = ParameterOf<Y>;
    with_reader(table, [&](const auto& codes) {
      parallel_rows(y.rows(), table.cols, [&](int64_t i) {
        Y* to = y.as<Y>() + i * table.cols;
        const int64_t r = ids[i];
        if (r < 0) return static_cast<void>(std::fill_n(to, table.cols, Y{}));
        const auto put = [&](int64_t c, P value) { to[c] = static_cast<Y>(static_cast<P>(scale) * value); };
        if (table.block == 0) {
          const UniformGrid<P> grid = grid_of<P>(table, r);
          for (int64_t c = 0; c < table.cols; ++c) put(c, grid.level(static_cast<P>(codes[r * table.cols + c])));
          return;
        }
        const P row_scale = scale_of<P>(table, r);
        for (int64_t j = 0; j < table.blocks(); ++j) {
          const float* from = table.centroids + static_cast<int64_t>(codes[j * table.rows + r]) * table.block;
          for (int64_t t = 0; t < table.block; ++t) put(j * table.block + t, row_scale * static_cast<P>(from[t]));
        }
      });
    });
  });
}

}  // namespace qn::cpu
