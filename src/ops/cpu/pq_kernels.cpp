#include "ops/cpu/pq_kernels.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/bfloat16.h"

namespace qn::cpu {
namespace {

// Codes run down a block column while weights run along a row: tiles of 16 rows use each code line fully and keep the
// row streams few enough for the prefetcher.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBlocks = 64;
constexpr int64_t kSerialBelow = 1 << 14;  // elements; smaller work does not pay for waking threads
constexpr int64_t kMaxGroups = 32;

/// Calls f(r, j) for every block of rows [r0, r1) and block columns [j0, j1), codes contiguous.
template <typename F>
inline void for_tile(int64_t r0, int64_t r1, int64_t j0, int64_t j1, F f) {
  for (int64_t j = j0; j < j1; ++j)
    for (int64_t r = r0; r < r1; ++r) f(r, j);
}

/// D is the block size when known at compile time, else 0.
template <int64_t D, typename T, typename P>
void decode(T* weight, const P* centroids, const uint16_t* codes, int64_t rows, int64_t cols, int64_t block) {
  const int64_t d = D > 0 ? D : block;
  const int64_t blocks = cols / d;
  const int64_t row_tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t column_tiles = (blocks + kTileBlocks - 1) / kTileBlocks;
#pragma omp parallel for collapse(2) schedule(static) if (rows * cols >= kSerialBelow)
  for (int64_t rt = 0; rt < row_tiles; ++rt) {
    for (int64_t ct = 0; ct < column_tiles; ++ct) {
      for_tile(rt * kTileRows, std::min(rows, (rt + 1) * kTileRows), ct * kTileBlocks,
               std::min(blocks, (ct + 1) * kTileBlocks), [&](int64_t r, int64_t j) {
                 const P* source = centroids + static_cast<int64_t>(codes[j * rows + r]) * d;
                 T* target = weight + r * cols + j * d;
#pragma omp simd
                 for (int64_t t = 0; t < d; ++t) target[t] = static_cast<T>(source[t]);
               });
    }
  }
}

/// How many partial sums to keep: from the sizes alone, never from the number of threads. Each group should do clearly
/// more work than zeroing and adding up its [K, d] table costs.
int64_t group_count(int64_t rows, int64_t blocks, int64_t n_centroids) {
  const int64_t by_work = rows * blocks / std::max<int64_t>(4096, 4 * n_centroids);
  const int64_t row_tiles = (rows + kTileRows - 1) / kTileRows;
  return std::clamp<int64_t>(std::min(by_work, row_tiles), 1, kMaxGroups);
}

template <int64_t D, typename T>
void sum_rows(double* sums, const T* grad, const uint16_t* codes, int64_t rows, int64_t cols, int64_t block,
              int64_t first_tile, int64_t last_tile) {
  const int64_t d = D > 0 ? D : block;
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    for_tile(tile * kTileRows, std::min(rows, (tile + 1) * kTileRows), 0, cols / d, [&](int64_t r, int64_t j) {
      double* sum = sums + static_cast<int64_t>(codes[j * rows + r]) * d;
      const T* g = grad + r * cols + j * d;
#pragma omp simd
      for (int64_t t = 0; t < d; ++t) sum[t] += static_cast<double>(g[t]);
    });
  }
}

/// Partial sums of every group into sums [groups, K, d]; group g takes a fixed range of row tiles.
template <int64_t D, typename T>
void sum_groups(double* sums, int64_t groups, int64_t n_centroids, const T* grad, const uint16_t* codes, int64_t rows,
                int64_t cols, int64_t d) {
  const int64_t row_tiles = (rows + kTileRows - 1) / kTileRows;
#pragma omp parallel for schedule(dynamic, 1) if (rows * cols >= kSerialBelow)
  for (int64_t g = 0; g < groups; ++g) {
    double* mine = sums + g * n_centroids * d;
    std::fill(mine, mine + n_centroids * d, 0.0);
    sum_rows<D>(mine, grad, codes, rows, cols, d, row_tiles * g / groups, row_tiles * (g + 1) / groups);
  }
}

}  // namespace

template <typename T, typename P>
void pq_decode(T* weight, const P* centroids, const uint16_t* codes, int64_t rows, int64_t cols, int64_t d) {
  switch (d) {
    case 4:
      return decode<4>(weight, centroids, codes, rows, cols, d);
    case 8:
      return decode<8>(weight, centroids, codes, rows, cols, d);
    case 16:
      return decode<16>(weight, centroids, codes, rows, cols, d);
    default:
      return decode<0>(weight, centroids, codes, rows, cols, d);
  }
}

template <typename P, typename T>
void pq_centroid_grad(P* grad_centroids, float beta, const T* grad_weight, const uint16_t* codes, int64_t rows,
                      int64_t cols, int64_t d, int64_t n_centroids, const int64_t* counts) {
  const int64_t groups = group_count(rows, cols / d, n_centroids);
  const int64_t table = n_centroids * d;
  // Kept between calls: a training step must not ask the system for memory.
  static thread_local std::vector<double> scratch;
  if (scratch.size() < static_cast<size_t>(groups * table)) scratch.resize(static_cast<size_t>(groups * table));
  double* sums = scratch.data();
  switch (d) {
    case 4:
      sum_groups<4>(sums, groups, n_centroids, grad_weight, codes, rows, cols, d);
      break;
    case 8:
      sum_groups<8>(sums, groups, n_centroids, grad_weight, codes, rows, cols, d);
      break;
    case 16:
      sum_groups<16>(sums, groups, n_centroids, grad_weight, codes, rows, cols, d);
      break;
    default:
      sum_groups<0>(sums, groups, n_centroids, grad_weight, codes, rows, cols, d);
  }
#pragma omp parallel for schedule(static) if (groups * table >= kSerialBelow)
  for (int64_t k = 0; k < n_centroids; ++k) {
    const double scale = counts == nullptr ? 1.0 : 1.0 / static_cast<double>(std::max<int64_t>(counts[k], 1));
    for (int64_t i = k * d; i < (k + 1) * d; ++i) {
      double total = 0.0;
      for (int64_t g = 0; g < groups; ++g) total += sums[g * table + i];
      const P value = static_cast<P>(total * scale);
      grad_centroids[i] = beta == 0.0f ? value : grad_centroids[i] + value;
    }
  }
}

template void pq_decode(float*, const float*, const uint16_t*, int64_t, int64_t, int64_t);
template void pq_decode(bfloat16*, const float*, const uint16_t*, int64_t, int64_t, int64_t);
template void pq_decode(double*, const double*, const uint16_t*, int64_t, int64_t, int64_t);
template void pq_centroid_grad(float*, float, const float*, const uint16_t*, int64_t, int64_t, int64_t, int64_t,
                               const int64_t*);
template void pq_centroid_grad(float*, float, const bfloat16*, const uint16_t*, int64_t, int64_t, int64_t, int64_t,
                               const int64_t*);
template void pq_centroid_grad(double*, float, const double*, const uint16_t*, int64_t, int64_t, int64_t, int64_t,
                               const int64_t*);

}  // namespace qn::cpu
