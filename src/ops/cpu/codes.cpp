// Products with matrices of codes: which way a product goes, and the ways around the inner loops.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/cpu/codes_decode.h"
#include "ops/cpu/codes_read.h"
#include "ops/cpu/codes_variants.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {

namespace codes_vbmi {
extern const CodesVariant variant;
}
namespace codes_avx512 {
extern const CodesVariant variant;
}
namespace codes_avx2 {
extern const CodesVariant variant;
}
namespace codes_baseline {
extern const CodesVariant variant;
}

namespace {

std::atomic<const CodesVariant*> chosen = nullptr;

// Fewer codes do not pay for waking threads.
constexpr int64_t kSerialBelow = 1 << 15;
constexpr int64_t kMostEntries = 256;  // of tables of bytes
/// Floats of a tile: of the second-level cache for few tokens; for many, whose product takes longer than decoding, as
/// many as a product needs to run at full speed.
constexpr int64_t kSmallTile = 1 << 17, kLargeTile = 1 << 21, kManyTokens = 64;

int64_t entries_of(int64_t levels) { return levels <= 64 ? 64 : levels <= 128 ? 128 : 256; }

/// |x_j| of every block; false where something is not finite.
struct Norms {
  double largest = 0.0, sum = 0.0;
};
Norms norms_of(const float* x, int64_t blocks, int64_t block) {
  Norms norms;
  for (int64_t j = 0; j < blocks; ++j) {
    double squares = 0.0;
    for (int64_t t = 0; t < block; ++t)
      squares += static_cast<double>(x[j * block + t]) * static_cast<double>(x[j * block + t]);
    const double norm = std::sqrt(squares);
    norms.largest = std::max(norms.largest, norm);
    norms.sum += norm;
  }
  return norms;
}

void scale_by_row(const CodeMatrix& w, float* y, int64_t begin, int64_t end) {
  if (w.row_scales == nullptr) return;
  for (int64_t r = begin; r < end; ++r) y[r] *= w.row_scale_values[w.row_scales[r]];
}

void transpose_centroids(const CodeMatrix& w, int64_t entries, float* to) {
  for (int64_t t = 0; t < w.block; ++t) {
    for (int64_t k = 0; k < w.levels; ++k) to[t * entries + k] = w.centroids[k * w.block + t];
    std::fill(to + t * entries + w.levels, to + (t + 1) * entries, 0.0f);
  }
}

/// y [rows] = W x. By Cauchy and Schwarz an entry is at most |x_j| times the largest centroid's norm, which gives
/// tables their scale; sums of entries must fit 32 bits.
void product_by_tables(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y, const Norms& norms) {
  const int64_t blocks = w.blocks(), entries = entries_of(w.levels);
  const double entry = norms.largest * w.largest_norm, sum = norms.sum * w.largest_norm;
  constexpr double kMostEntry = (1 << 23) - 2, kMostSum = 2147480000.0;
  const double scale = entry > 0.0 ? std::min(kMostEntry / entry, kMostSum / sum) : 0.0;
  static thread_local std::vector<float> transposed_scratch;
  static thread_local std::vector<uint8_t> table_scratch;
  float* transposed = at_least(transposed_scratch, w.block * entries);
  uint8_t* tables = at_least(table_scratch, blocks * 3 * entries + 64);
  tables += -reinterpret_cast<uintptr_t>(tables) % 64;
  transpose_centroids(w, entries, transposed);
  const ByteTables made{transposed, x, w.block, entries, static_cast<float>(scale), tables};
  const float inverse = scale > 0.0 ? static_cast<float>(1.0 / scale) : 0.0f;
  constexpr int64_t kBlocks = 8;
#pragma omp parallel if (w.rows * blocks >= kSerialBelow)
  {
#pragma omp for schedule(static)
    for (int64_t j = 0; j < blocks; j += kBlocks) variant.make_tables(made, j, std::min(blocks, j + kBlocks));
#pragma omp for schedule(static)
    for (int64_t r = 0; r < w.rows; r += kLookupRows) {
      const int64_t count = std::min(kLookupRows, w.rows - r);
      ByteLookups part{w.codes + r, w.rows, count, tables, blocks, entries, inverse, y + r};
      if (w.bits != 8) {
        static thread_local std::vector<uint8_t> unpacked;
        uint8_t* codes = at_least(unpacked, blocks * kLookupRows + kCodePadding);
        for (int64_t j = 0; j < blocks; ++j) read_codes(w, j * w.rows + r, count, codes + j * kLookupRows);
        part.codes = codes;
        part.stride = kLookupRows;
      }
      variant.lookups(part);
      scale_by_row(w, y, r, r + count);
    }
  }
}

/// The others are zeros where blocks are no multiple of all lanes.
template <int64_t kLanes>
void add_lanes(float* y, int64_t count, const float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0.0f;
    for (int64_t l = 0; l < kLanes; ++l) sum += sums[i * kSumLanes + l];
    y[i] = sum;
  }
}

template <typename Code>
void block_dots_of(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y) {
  constexpr int64_t kBlocks = 16, kSize = sizeof(Code);
  const int64_t blocks = w.blocks();
  // Lines that lie 4096 bytes apart do not stay in the first cache together: they are copied.
  const bool in_place = w.bits == 8 * kSize && w.rows * kSize % 4096 != 0;
#pragma omp parallel for schedule(static) if (w.rows * blocks >= kSerialBelow)
  for (int64_t r = 0; r < w.rows; r += kDotRows) {
    alignas(64) float sums[kDotRows * kSumLanes] = {};
    alignas(64) Code copied[kBlocks * kDotRows + 1] = {};
    const int64_t count = std::min(kDotRows, w.rows - r);
    for (int64_t j = 0; j < blocks; j += kBlocks) {
      const int64_t n = std::min(kBlocks, blocks - j);
      BlockDots part{copied, kSize == 2, kDotRows, n, w.block, w.centroids, x + j * w.block, sums};
      if (in_place && count == kDotRows) {
        part.codes = w.codes + (j * w.rows + r) * kSize;
        part.stride = w.rows;
      } else {
        for (int64_t i = 0; i < n; ++i) read_codes(w, (j + i) * w.rows + r, count, copied + i * kDotRows);
      }
      // Short runs far apart: the processor does not foresee them.
      for (int64_t i = 0; i < kBlocks; ++i) {
        const int64_t next = j + kBlocks + i;
        const int64_t code =
            next < blocks ? next * w.rows + r : std::min(next - blocks, blocks - 1) * w.rows + r + kDotRows;
        __builtin_prefetch(w.codes + code * w.bits / 8);
      }
      variant.block_dots(part);
    }
    if (w.block % kSumLanes == 0)
      add_lanes<kSumLanes>(y + r, count, sums);
    else
      add_lanes<kSumLanes / 2>(y + r, count, sums);
    scale_by_row(w, y, r, r + count);
  }
}

void grid_dots_of(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y) {
#pragma omp parallel for schedule(static) if (w.rows * w.cols >= kSerialBelow)
  for (int64_t r = 0; r < w.rows; r += kGridRows) {
    static thread_local std::vector<uint8_t> unpacked;
    float sums[kGridRows];
    GridDots part{{}, {}, x, w.cols, sums};
    const auto count = static_cast<int>(std::min<int64_t>(kGridRows, w.rows - r));
    for (int i = 0; i < kGridRows; ++i) {
      const int64_t row = r + std::min(i, count - 1);
      part.rows[i] = w.codes + row * w.cols;
      if (w.bits != 8) {
        uint8_t* codes = at_least(unpacked, kGridRows * (w.cols + 1)) + i * (w.cols + 1);
        read_codes(w, row * w.cols, w.cols, codes);
        part.rows[i] = codes;
      }
      part.zeros[i] = w.zero_points[w.grid_per_row ? row : 0];
    }
    variant.grid_dots(part);
    for (int i = 0; i < count; ++i) y[r + i] = sums[i] * w.scales[w.grid_per_row ? r + i : 0];
  }
}

void dots(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y) {
  if (w.block == 0) return grid_dots_of(variant, w, x, y);
  w.bits <= 8 ? block_dots_of<uint8_t>(variant, w, x, y) : block_dots_of<uint16_t>(variant, w, x, y);
}

void product_by_token(const CodesVariant& variant, const CodeMatmulArgs& a, CodesPath path) {
  // Threads share tokens, or else the rows of each.
#pragma omp parallel for schedule(static) if (a.x.rows() >= omp_get_max_threads() && a.x.rows() > 1)
  for (int64_t i = 0; i < a.x.rows(); ++i) {
    const float* x = a.x.as<float>() + i * a.x.cols();
    float* y = a.y.as<float>() + i * a.y.cols() + a.column;
    const Norms norms = path == CodesPath::byte_tables ? norms_of(x, a.weight.blocks(), a.weight.block) : Norms{};
    if (path == CodesPath::byte_tables && std::isfinite(norms.sum))
      product_by_tables(variant, a.weight, x, y, norms);
    else
      dots(variant, a.weight, x, y);  // also gives what is not finite
  }
}

/// Some rows at a time, decoded.
template <typename T>
void product_by_tiles(const CodeMatmulArgs& a) {
  const CodeMatrix& w = a.weight;
  const int64_t m = a.x.rows(), floats = m < kManyTokens ? kSmallTile : kLargeTile;
  const int64_t tile_rows = std::min(w.rows, std::max<int64_t>(16, floats / w.cols));
  static thread_local std::vector<T> scratch;
  T* tile = at_least(scratch, tile_rows * w.cols);
  T* y = a.y.as<T>() + a.column;
  for (int64_t r = 0; r < w.rows; r += tile_rows) {
    const int64_t rows = std::min(tile_rows, w.rows - r);
    decode_rows(tile, w, r, r + rows);
    MatmulArgs product{.dtype = a.y.dtype,
                       .dtype_c = a.y.dtype,
                       .transpose_b = !a.transposed,
                       .m = m,
                       .n = a.transposed ? w.cols : rows,
                       .k = a.transposed ? rows : w.cols,
                       .a = a.x.as<T>() + (a.transposed ? r : 0),
                       .lda = a.x.cols(),
                       .b = tile,
                       .ldb = w.cols,
                       .c = y + (a.transposed ? 0 : r),
                       .ldc = a.y.cols(),
                       .beta = a.transposed && r > 0 ? 1 : 0};
    matmul(product);
  }
}

}  // namespace

std::span<const CodesVariant* const> codes_variants() {
  static const std::vector<const CodesVariant*> variants = [] {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    std::vector<const CodesVariant*> list;
    if (avx512 && __builtin_cpu_supports("avx512vbmi")) list.push_back(&codes_vbmi::variant);
    if (avx512) list.push_back(&codes_avx512::variant);
    if (avx2) list.push_back(&codes_avx2::variant);
    list.push_back(&codes_baseline::variant);
    return list;
  }();
  return variants;
}

const CodesVariant& codes_variant() {
  const CodesVariant* variant = chosen.load();
  return variant != nullptr ? *variant : *codes_variants().front();
}

void use_codes_variant(const CodesVariant* variant) { chosen = variant; }

const char* name_of(CodesPath path) {
  return path == CodesPath::byte_tables ? "tables of bytes" : path == CodesPath::dots ? "dots" : "decoded tiles";
}

// Per code and token, in hundredths of a nanosecond of a core at 4 GHz (Zen 5; bench/README.md). Only the ratios
// matter.
CodesPath path_of(const CodeMatrix& w, int64_t tokens, DType dtype, bool transposed) {
  if (dtype != DType::f32 || transposed) return CodesPath::tiles;
  const auto d = static_cast<double>(std::max<int64_t>(w.block, 1)), n = static_cast<double>(tokens);
  const double decoding = w.block > 0 ? 150.0 : 30.0, dot = w.block > 0 ? 22.0 * std::max(1.0, d / 8.0) : 10.0;
  const double tiles = decoding / n + d, dots = dot;
  CodesPath best = tiles < dots ? CodesPath::tiles : CodesPath::dots;
  if (w.block == 0 || w.levels > kMostEntries || codes_variant().lookups == nullptr) return best;
  const auto entries = static_cast<double>(entries_of(w.levels));
  const double tables = 6.0 + entries / static_cast<double>(w.rows) * (8.0 + d);
  return tables < std::min(tiles, dots) ? CodesPath::byte_tables : best;
}

void matmul_codes(const CodeMatmulArgs& a) {
  const CodeMatrix& w = a.weight;
  QN_ASSERT(a.x.cols() == (a.transposed ? w.rows : w.cols) && a.y.rows() == a.x.rows() && a.y.dtype == a.x.dtype &&
                a.column + (a.transposed ? w.cols : w.rows) <= a.y.cols(),
            "codes [{}, {}] on {}, results in {} from column {}", w.rows, w.cols, a.x.shape.to_string(),
            a.y.shape.to_string(), a.column);
  const CodesPath path = path_of(w, a.x.rows(), a.x.dtype, a.transposed);
  if (path != CodesPath::tiles) return product_by_token(codes_variant(), a, path);
  dispatch_float(a.x.dtype, [&](auto tag) { product_by_tiles<decltype(tag)>(a); });
}

}  // namespace qn::cpu
