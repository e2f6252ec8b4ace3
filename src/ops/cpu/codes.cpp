// Products with matrices of codes: which way a product goes, and the ways around the inner loops.
#include <cpuid.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/code_product.h"
#include "ops/cpu/codes_decode.h"
#include "ops/cpu/codes_read.h"
#include "ops/cpu/codes_tokens.h"
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

/// to [block, entries] = the centroids transposed, the k-th in column place(k), and zeros.
template <typename Place>
void transpose_centroids(const CodeMatrix& w, int64_t entries, const Place& place, float* to) {
  if (w.levels < entries) std::fill_n(to, w.block * entries, 0.0f);
  for (int64_t k = 0; k < w.levels; ++k)
    for (int64_t t = 0; t < w.block; ++t) to[t * entries + place(k)] = w.centroids[k * w.block + t];
}

/// Rows [first, first + count) of a product; tables are made by all threads before.
template <typename MakeTables, typename LookUp>
void product_by_tables(const CodeMatrix& w, float* y, const MakeTables& make_tables, const LookUp& look_up) {
  constexpr int64_t kBlocks = 8;
  const int64_t blocks = w.blocks();
#pragma omp parallel if (w.rows * blocks >= kSerialBelow)
  {
#pragma omp for schedule(static)
    for (int64_t j = 0; j < blocks; j += kBlocks) make_tables(j, std::min(blocks, j + kBlocks));
#pragma omp for schedule(static)
    for (int64_t r = 0; r < w.rows; r += kLookupRows) {
      static thread_local std::vector<uint8_t> unpacked;
      const int64_t count = std::min(kLookupRows, w.rows - r);
      look_up(byte_codes(w, r, count, unpacked), r, count);
      scale_by_row(w, y, r, r + count);
    }
  }
}

/// What tables for one token are made in.
struct TableScratch {
  std::vector<float> inputs, centroids;
  std::vector<uint8_t> tables;
  template <typename T>
  T* aligned_tables(int64_t count) {
    uint8_t* bytes = at_least(tables, count * static_cast<int64_t>(sizeof(T)) + 64);
    return reinterpret_cast<T*>(bytes + -reinterpret_cast<uintptr_t>(bytes) % 64);
  }
};
thread_local TableScratch table_scratch;

/// y [rows] = W x. By Cauchy and Schwarz an entry is at most |x_j| times the largest centroid's norm, which gives
/// tables their scale; sums of entries must fit 32 bits.
void product_by_byte_tables(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y,
                            const Norms& norms) {
  const int64_t blocks = w.blocks(), entries = entries_of(w.levels);
  const double entry = norms.largest * w.largest_norm, sum = norms.sum * w.largest_norm;
  constexpr double kMostEntry = (1 << 23) - 2, kMostSum = 2147480000.0;
  const double scale = entry > 0.0 ? std::min(kMostEntry / entry, kMostSum / sum) : 0.0;
  float* inputs = at_least(table_scratch.inputs, w.cols);
  for (int64_t c = 0; c < w.cols; ++c) inputs[c] = x[c] * static_cast<float>(scale);
  float* centroids = at_least(table_scratch.centroids, w.block * entries);
  transpose_centroids(w, entries, byte_place, centroids);
  const ByteTables made{{centroids, inputs, w.block, entries},
                        table_scratch.aligned_tables<uint8_t>(blocks * 3 * entries)};
  const float inverse = scale > 0.0 ? static_cast<float>(1.0 / scale) : 0.0f;
  product_by_tables(
      w, y, [&](int64_t begin, int64_t end) { variant.make_tables(made, begin, end); },
      [&](const ByteCodes& codes, int64_t r, int64_t count) {
        variant.lookups({codes.codes, codes.stride, count, made.tables, blocks, entries, inverse, y + r});
      });
}

void product_by_float_tables(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y) {
  const int64_t blocks = w.blocks(), entries = (w.levels + 31) / 32 * 32;
  float* centroids = at_least(table_scratch.centroids, w.block * entries);
  transpose_centroids(
      w, entries, [](int64_t k) { return k; }, centroids);
  const FloatTables made{{centroids, x, w.block, entries}, table_scratch.aligned_tables<float>(blocks * entries)};
  product_by_tables(
      w, y, [&](int64_t begin, int64_t end) { variant.make_float_tables(made, begin, end); },
      [&](const ByteCodes& codes, int64_t r, int64_t count) {
        variant.float_lookups({codes.codes, codes.stride, count, made.tables, blocks, entries, y + r});
      });
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

/// y [m, cols] = x [m, rows] W.
void transposed_dots(const CodesVariant& variant, const CodeMatmulArgs& a) {
  const CodeMatrix& w = a.weight;
  std::vector<float> scaled(static_cast<size_t>(w.row_scales == nullptr ? 0 : w.rows));
  for (int64_t i = 0; i < a.x.rows(); ++i) {
    const float* x = a.x.as<float>() + i * w.rows;
    float* y = a.y.as<float>() + i * a.y.cols() + a.column;
    if (w.row_scales != nullptr) {
      std::copy_n(x, w.rows, scaled.data());
      scale_by_row(w, scaled.data(), 0, w.rows);
      x = scaled.data();
    }
#pragma omp parallel for schedule(static) if (w.rows * w.blocks() >= kSerialBelow)
    for (int64_t j = 0; j < w.blocks(); ++j) {
      static thread_local std::vector<uint8_t> unpacked;
      const uint8_t* codes = w.codes + j * w.rows;
      if (w.bits != 8) {
        uint8_t* bytes = at_least(unpacked, w.rows + 1);
        read_codes(w, j * w.rows, w.rows, bytes);
        codes = bytes;
      }
      variant.column_dots({codes, w.rows, w.block, w.centroids, x, y + j * w.block});
    }
  }
}

void product_of_token(const CodesVariant& variant, const CodeMatrix& w, const float* x, float* y, CodesPath path) {
  if (path == CodesPath::float_tables) return product_by_float_tables(variant, w, x, y);
  if (path == CodesPath::byte_tables) {
    const Norms norms = norms_of(x, w.blocks(), w.block);
    if (std::isfinite(norms.sum)) return product_by_byte_tables(variant, w, x, y, norms);
  }
  dots(variant, w, x, y);  // also gives what is not finite
}

void product_by_token(const CodesVariant& variant, const CodeMatmulArgs& a, CodesPath path) {
  // Threads share tokens, or else the rows of each.
#pragma omp parallel for schedule(static) if (a.x.rows() >= omp_get_max_threads() && a.x.rows() > 1)
  for (int64_t i = 0; i < a.x.rows(); ++i)
    product_of_token(variant, a.weight, a.x.as<float>() + i * a.x.cols(), a.y.as<float>() + i * a.y.cols() + a.column,
                     path);
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
  switch (path) {
    case CodesPath::byte_tables:
      return "tables of bytes";
    case CodesPath::float_tables:
      return "tables of floats";
    case CodesPath::token_tables:
      return "tables for groups of tokens";
    case CodesPath::dots:
      return "dots";
    default:
      return "decoded tiles";
  }
}

bool serves(CodesPath path, const CodeMatrix& w, DType dtype, bool transposed) {
  if (path == CodesPath::tiles) return true;
  if (dtype != DType::f32) return false;
  const bool bytes = w.block > 0 && w.bits <= 8;
  if (path == CodesPath::dots) return bytes || !transposed;
  if (transposed || !bytes) return false;
  if (path == CodesPath::float_tables) return codes_variant().float_lookups != nullptr;
  return path == CodesPath::token_tables || codes_variant().lookups != nullptr;
}

namespace {

/// Intel's processors with AVX_VNNI gather a register in little more time than its loads take. Older ones have been
/// slowed down by what keeps gathers from leaking data; others gather in many small steps.
bool gathers_well() {
  static const bool well = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __builtin_cpu_is("intel") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1U << 4) != 0;
  }();
  return well;
}

/// Of a product, per code and token, in hundredths of a nanosecond of one core of an Intel Xeon at 2.95 GHz; only the
/// ratios matter.
double cost_of(CodesPath path, const CodeMatrix& w, int64_t tokens) {
  const auto n = static_cast<double>(tokens), d = static_cast<double>(std::max<int64_t>(w.block, 1));
  const int64_t group = codes_variant().tokens;
  switch (path) {
    case CodesPath::tiles: {
      // A product of few rows has little to gain from what it copies.
      const double decoding = w.block > 0 ? 60.0 + 10.0 * d : 30.0, multiplying = group >= 16 ? 1.3 : 2.6;
      return decoding / n + multiplying * d * (1.0 + 16.0 / n);
    }
    case CodesPath::dots:
      return w.block > 0 ? 37.0 * std::max(1.0, d / 8.0) : 10.0;
    case CodesPath::byte_tables:
      return 12.0 + static_cast<double>(entries_of(w.levels)) / static_cast<double>(w.rows) * (8.0 + d);
    case CodesPath::float_tables:
      if (!gathers_well()) return std::numeric_limits<double>::infinity();
      return 23.0 + static_cast<double>(w.levels) / static_cast<double>(w.rows) * d;
    case CodesPath::token_tables: {
      const double groups = static_cast<double>((tokens + group - 1) / group);
      const double entries = static_cast<double>(w.levels) / static_cast<double>(std::min<int64_t>(w.rows, 4096));
      return groups / n * (50.0 + 19.0 * d * entries);
    }
  }
  return 0.0;
}

}  // namespace

CodesPath path_of(const CodeMatrix& w, int64_t tokens, DType dtype, bool transposed) {
  CodesPath best = CodesPath::tiles;
  for (const CodesPath path :
       {CodesPath::byte_tables, CodesPath::float_tables, CodesPath::token_tables, CodesPath::dots})
    if (serves(path, w, dtype, transposed) && cost_of(path, w, tokens) < cost_of(best, w, tokens)) best = path;
  return best;
}

void matmul_codes(const CodeMatmulArgs& a) {
  assert_shapes(a);
  matmul_codes_by(path_of(a.weight, a.x.rows(), a.x.dtype, a.transposed), a);
}

void matmul_codes_by(CodesPath path, const CodeMatmulArgs& a) {
  QN_ASSERT(serves(path, a.weight, a.x.dtype, a.transposed));
  switch (path) {
    case CodesPath::tiles:
      return dispatch_float(a.x.dtype, [&](auto tag) { product_by_tiles<decltype(tag)>(a); });
    case CodesPath::token_tables:
      return product_by_token_tables(codes_variant(), a);
    case CodesPath::dots:
      if (a.transposed) return transposed_dots(codes_variant(), a);
      [[fallthrough]];
    default:
      return product_by_token(codes_variant(), a, path);
  }
}

}  // namespace qn::cpu
