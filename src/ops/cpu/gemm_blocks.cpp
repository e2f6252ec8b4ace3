// Products of large fp32 matrices. oneDNN's are about as fast on one thread with everything in the cache; ours share
// tiles out as threads become free, pack what is transposed along memory, and are the same for any number of threads.
#include "ops/cpu/gemm_blocks.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "ops/cpu/gemm_variants.h"
#include "ops/cpu/pieces.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {

namespace gemm_avx512 {
extern const GemmVariant variant;
}
namespace gemm_avx2 {
extern const GemmVariant variant;
}

namespace {

std::atomic<const GemmVariant*> chosen = nullptr;

/// Sums are taken over so many columns of A at a time: the order of additions, so the same everywhere.
constexpr int64_t kDepth = 256;
/// Of C, computed by a thread at a time. B's part of the columns and a depth is a quarter of a MiB.
constexpr int64_t kUnitRows = 84, kUnitCols = 256;
constexpr int64_t kUnits = 12;  // at least, where there are so many rows: threads should end together
constexpr int64_t kPackedPanels = 4, kPackedGroups = 8;  // at a time

int64_t parts(int64_t n, int64_t part) { return (n + part - 1) / part; }

/// One product, and where its operands are packed: depth by depth, in panels and groups as tiles want them.
struct Product {
  const GemmVariant& variant;
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float beta;
  float* c;
  int64_t ldc;
  float *packed_a, *packed_b;  ///< packed_a: null where A is used as it lies

  int64_t panels() const { return parts(n, variant.cols); }
  int64_t groups() const { return parts(m, variant.rows); }
  /// Of a unit; whole groups.
  int64_t unit_rows() const {
    const int64_t wanted = parts(m, parts(kUnits, parts(n, kUnitCols)));
    return std::min(kUnitRows, parts(wanted, variant.rows) * variant.rows);
  }
  int64_t units() const { return parts(m, unit_rows()) * parts(n, kUnitCols); }
  int64_t depth_at(int64_t l) const { return std::min(kDepth, k - l); }
  float* panel(int64_t l, int64_t p) const { return packed_b + (l * panels() + p * depth_at(l)) * variant.cols; }
  float* group(int64_t l, int64_t g) const { return packed_a + (l * groups() + g * depth_at(l)) * variant.rows; }

  void pack_panels(int64_t piece) const {
    const int64_t pieces = parts(panels(), kPackedPanels), l = piece / pieces * kDepth;
    const int64_t first = piece % pieces * kPackedPanels;
    for (int64_t p = first; p < std::min(panels(), first + kPackedPanels); ++p) {
      const int64_t j = p * variant.cols;
      variant.pack_panel(panel(l, p), transpose_b ? b + j * ldb + l : b + l * ldb + j, ldb, transpose_b, depth_at(l),
                         std::min(variant.cols, n - j));
    }
  }

  void pack_groups(int64_t piece) const {
    const int64_t pieces = parts(groups(), kPackedGroups), l = piece / pieces * kDepth;
    const int64_t first = piece % pieces * kPackedGroups, i = first * variant.rows;
    variant.pack_rows(group(l, first), a + l * lda + i, lda, std::min(m - i, kPackedGroups * variant.rows),
                      depth_at(l));
  }

  void multiply(int64_t piece) const {
    const int64_t height = unit_rows(), pieces = parts(m, height);
    const int64_t i = piece % pieces * height, j = piece / pieces * kUnitCols;
    GemmBlock block{.rows = std::min(height, m - i),
                    .cols = std::min(kUnitCols, n - j),
                    .row_stride = transpose_a ? 1 : lda,
                    .depth_stride = transpose_a ? lda : 1,
                    .c = c + i * ldc + j,
                    .ldc = ldc,
                    .alpha = alpha,
                    .add = beta != 0.0f};
    for (int64_t l = 0; l < k; l += kDepth, block.add = true) {
      block.depth = depth_at(l);
      block.b = panel(l, j / variant.cols);
      block.panel_stride = block.depth * variant.cols;
      block.a = a + i * block.row_stride + l * block.depth_stride;
      block.group_stride = variant.rows * block.row_stride;
      if (packed_a != nullptr) {
        block.a = group(l, i / variant.rows);
        block.group_stride = block.depth * variant.rows;
        block.depth_stride = variant.rows;
      }
      variant.multiply(block);
    }
  }
};
static_assert(kUnitRows % 14 == 0 && kUnitRows % 6 == 0 && kUnitCols % 32 == 0);

/// Floats of an operand that are packed at most: scratch memory stays small beside what is computed with.
constexpr int64_t kMostPacked = int64_t{1} << 22;

/// Below these sizes oneDNN's kernels without packing win.
bool is_worth_it(int64_t m, int64_t n, int64_t k) {
  return m >= 64 && n >= 64 && k >= 48 && m * n * k >= int64_t{1} << 21 && std::max(m, n) * k <= kMostPacked;
}

}  // namespace

std::span<const GemmVariant* const> gemm_variants() {
  static const std::vector<const GemmVariant*> variants = [] {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    std::vector<const GemmVariant*> list;
    if (avx512 && dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx512_core) list.push_back(&gemm_avx512::variant);
    if (avx2) list.push_back(&gemm_avx2::variant);
    return list;
  }();
  return variants;
}

const GemmVariant* gemm_variant() {
  const GemmVariant* variant = chosen.load(std::memory_order_relaxed);
  if (variant != nullptr) return variant;
  return gemm_variants().empty() ? nullptr : gemm_variants().front();
}

void use_gemm_variant(const GemmVariant* variant) { chosen = variant; }

bool gemm_by_blocks(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                    int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const GemmVariant* const variant = gemm_variant();
  if (variant == nullptr || (beta != 0.0f && beta != 1.0f) || !is_worth_it(m, n, k)) return false;
  static thread_local std::vector<float> room_a, room_b;
  Product product{*variant, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, nullptr, nullptr};
  product.packed_b = lines_at_least(room_b, product.panels() * variant->cols * k);
  if (transpose_a && variant->packs_columns)
    product.packed_a = lines_at_least(room_a, product.groups() * variant->rows * k);
  const int64_t depths = parts(k, kDepth);
  Pieces panels(depths * parts(product.panels(), kPackedPanels));
  Pieces groups(product.packed_a != nullptr ? depths * parts(product.groups(), kPackedGroups) : 0);
  Pieces units(product.units());
#pragma omp parallel if (!omp_in_parallel())
  {
    panels.share([&](int64_t piece) { product.pack_panels(piece); });
    groups.share([&](int64_t piece) { product.pack_groups(piece); });
#pragma omp barrier
    units.share([&](int64_t piece) { product.multiply(piece); });
  }
  return true;
}

}  // namespace qn::cpu
