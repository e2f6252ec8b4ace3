// Matrix products of quantized activations and weights: codes of activations are made here, sums by the instruction
// set's variant, and the sums are put on their scale here again.
#include <omp.h>

#include <array>
#include <cmath>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/int8_variants.h"
#include "ops/cpu/parallel.h"
#include "ops/uniform_grid.h"

namespace qn::cpu {

namespace int8_vnni {
extern const Int8Variant variant;
}
namespace int8_avx2 {
extern const Int8Variant variant;
}
namespace int8_baseline {
extern const Int8Variant variant;
}

namespace {

constexpr int64_t kSlabRows = 4096;         // rows whose codes exist at a time
constexpr int64_t kBlockBytes = 128 << 10;  // codes that stay in a core's cache while the weight goes by
constexpr int64_t kCodePadding = 64;        // bytes between rows: else many would lie in one set of the first cache
constexpr int64_t kMostColumns = 32;        // of a tile
constexpr double kShift = 128.0;            // weight codes are stored less this

/// Codes of a row, filled up with zeros; returns their sum.
template <typename Code, typename T>
int32_t quantize_row(Code* codes, const T* x, int64_t k, int64_t padded, const ActivationGrid& grid) {
  using P = ParameterOf<T>;
  const UniformGrid<P> levels{static_cast<P>(*grid.scale), static_cast<P>(*grid.zero_point),
                              static_cast<P>(last_code(grid.bits))};
  int32_t sum = 0;
  for (int64_t l = 0; l < k; ++l) {
    const int32_t code = levels.index(static_cast<P>(x[l]));
    codes[l] = static_cast<Code>(code);
    sum += code;
  }
  for (int64_t l = k; l < padded; ++l) codes[l] = 0;
  return sum;
}

/// Rows [0, m) of activations as codes.
struct Codes {
  const std::byte* data;
  const int32_t* sums;  ///< of each row
  int64_t stride;       ///< in codes
  int64_t code_bytes;
};

template <typename Code, typename T>
Codes quantize(const T* x, int64_t m, int64_t k, const ActivationGrid& grid) {
  static thread_local std::vector<Code> codes;
  static thread_local std::vector<int32_t> sums;
  const int64_t padded = padded_int8_columns(k);
  const int64_t stride = padded + kCodePadding / static_cast<int64_t>(sizeof(Code));
  if (codes.size() < static_cast<size_t>(m * stride)) codes.resize(static_cast<size_t>(m * stride));
  if (sums.size() < static_cast<size_t>(m)) sums.resize(static_cast<size_t>(m));
  parallel_rows(m, k, [=, to = codes.data(), row_sum = sums.data()](int64_t r) {
    row_sum[r] = quantize_row(to + r * stride, x + r * k, k, padded, grid);
  });
  return {reinterpret_cast<const std::byte*>(codes.data()), sums.data(), stride, sizeof(Code)};
}

/// How sums of a tile's columns become results: scale * (sum - zero * (sum of the activations' codes) - offset).
struct ColumnScales {
  std::array<double, kMostColumns> scale, zero, offset;

  ColumnScales(const Int8MatmulArgs& args, const int32_t* weight_sums, int64_t first, int64_t count) {
    const double x_scale = *args.grid.scale, x_zero = *args.grid.zero_point;
    const auto k = static_cast<double>(args.x.cols());
    for (int64_t c = 0; c < count; ++c) {
      const auto at = static_cast<size_t>(c);
      const int64_t j = args.grid_per_row ? first + c : 0;
      scale[at] = x_scale * static_cast<double>(args.scales[j]);
      zero[at] = static_cast<double>(args.zero_points[j]) - kShift;
      offset[at] = x_zero * (static_cast<double>(weight_sums[first + c]) - k * zero[at]);
    }
  }

  template <typename T>
  void apply(T* y, const int32_t* sums, int64_t count, int32_t code_sum) const {
    const auto codes = static_cast<double>(code_sum);
    for (size_t c = 0; c < static_cast<size_t>(count); ++c) {
      const double exact = static_cast<double>(sums[c]) - zero[c] * codes - offset[c];
      y[c] = static_cast<T>(static_cast<ParameterOf<T>>(scale[c] * exact));
    }
  }
};

/// Rows [0, m) of y for panels [begin, end) of the weight.
template <typename T>
void multiply_panels(const Int8Variant& variant, const Int8MatmulArgs& args, const Codes& codes, T* y, int64_t m,
                     int64_t begin, int64_t end) {
  alignas(64) int32_t sums[kMostInt8TileSums];
  const int64_t k = args.x.cols(), depth = padded_int8_columns(k), ld = args.y.cols();
  const int32_t* weight_sums = packed_int8_sums(args.weight, args.n, k);
  for (int64_t p = begin; p < end; ++p) {
    const int64_t first = p * variant.columns, count = std::min<int64_t>(variant.columns, args.n - first);
    const ColumnScales scales(args, weight_sums, first, count);
    for (int64_t r = 0; r < m; r += variant.rows) {
      const int64_t rows = std::min<int64_t>(variant.rows, m - r);
      variant.multiply({.codes = codes.data + r * codes.stride * codes.code_bytes,
                        .stride = codes.stride,
                        .rows = static_cast<int>(rows),
                        .panel = static_cast<const int8_t*>(args.weight) + first * depth,
                        .depth = depth,
                        .sums = sums});
      for (int64_t i = 0; i < rows; ++i)
        scales.apply(y + (r + i) * ld + args.column + first, sums + i * variant.columns, count, codes.sums[r + i]);
    }
  }
}

/// Rows [first, first + m).
template <typename T>
void multiply_slab(const Int8Variant& variant, const Int8MatmulArgs& args, int64_t first, int64_t m) {
  const int64_t k = args.x.cols();
  const T* x = args.x.as<T>() + first * k;
  T* y = args.y.as<T>() + first * args.y.cols();
  const Codes codes =
      variant.wide_codes ? quantize<int16_t>(x, m, k, args.grid) : quantize<uint8_t>(x, m, k, args.grid);
  const int64_t row_bytes = codes.stride * codes.code_bytes;
  const int64_t block = std::max<int64_t>(kBlockBytes / row_bytes / variant.rows, 1) * variant.rows;
  const int64_t blocks = (m + block - 1) / block, panels = (args.n + variant.columns - 1) / variant.columns;
  const int64_t together = std::clamp<int64_t>(blocks * panels / (4 * omp_get_max_threads()), 1, 16);
  const int64_t shares = (panels + together - 1) / together;
#pragma omp parallel for collapse(2) schedule(dynamic) if (m * args.n * k > 65536)
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t s = 0; s < shares; ++s) {
      const int64_t r = b * block;
      const Codes mine{codes.data + r * row_bytes, codes.sums + r, codes.stride, codes.code_bytes};
      multiply_panels(variant, args, mine, y + r * args.y.cols(), std::min(block, m - r), s * together,
                      std::min(panels, (s + 1) * together));
    }
}

}  // namespace

Int8Features detect_int8_features() {
  return {.avx512_vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"),
          .avx2 = __builtin_cpu_supports("avx2") != 0};
}

const Int8Variant& choose_int8_variant(const Int8Features& features) {
  if (features.avx512_vnni) return int8_vnni::variant;
  return features.avx2 ? int8_avx2::variant : int8_baseline::variant;
}

std::span<const Int8Variant* const> int8_variants() {
  static const std::vector<const Int8Variant*> variants = [] {
    const Int8Features here = detect_int8_features();
    std::vector<const Int8Variant*> list;
    if (here.avx512_vnni) list.push_back(&int8_vnni::variant);
    if (here.avx2) list.push_back(&int8_avx2::variant);
    list.push_back(&int8_baseline::variant);
    return list;
  }();
  return variants;
}

void pack_int8_as(const Int8Variant& variant, void* packed, const Tensor& codes) {
  const int64_t n = codes.rows(), k = codes.cols(), depth = padded_int8_columns(k);
  const auto* from = codes.as<uint8_t>();
  auto* to = static_cast<int8_t*>(packed);
  auto* sums = const_cast<int32_t*>(packed_int8_sums(packed, n, k));
  parallel_rows(padded_int8_rows(n), depth, [=](int64_t j) {
    int8_t* panel = to + j / variant.columns * variant.columns * depth + j % variant.columns * variant.group;
    int32_t sum = 0;
    for (int64_t l = 0; l < depth; ++l) {
      const bool filling = j >= n || l >= k;
      const int32_t value = filling ? 0 : from[j * k + l] - static_cast<int32_t>(kShift);
      panel[l / variant.group * variant.columns * variant.group + l % variant.group] = static_cast<int8_t>(value);
      sum += value;
    }
    sums[j] = sum;
  });
}

void matmul_int8_as(const Int8Variant& variant, const Int8MatmulArgs& args) {
  dispatch_float(args.x.dtype, [&](auto tag) {
    const int64_t m = args.x.rows();
    for (int64_t r = 0; r < m; r += kSlabRows)
      multiply_slab<decltype(tag)>(variant, args, r, std::min(kSlabRows, m - r));
  });
}

void pack_int8(void* packed, const Tensor& codes) { pack_int8_as(*int8_variants().front(), packed, codes); }

void matmul_int8(const Int8MatmulArgs& args) { matmul_int8_as(*int8_variants().front(), args); }

}  // namespace qn::cpu
