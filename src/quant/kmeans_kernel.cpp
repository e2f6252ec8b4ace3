#include "quant/kmeans_kernel.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "quant/kmeans_bounds.h"

namespace qn {

namespace avx512vnni {
void assign(AssignTask& task);
}
namespace avx512 {
void assign(AssignTask& task);
}
namespace avx2 {
void assign(AssignTask& task);
}
namespace baseline {
void assign(AssignTask& task);
}

namespace {

/// Adding and subtracting this rounds a double to a multiple of ulp(magic).
double grid_magic(double largest_term, int64_t terms) {
  const double bound = largest_term * static_cast<double>(std::max<int64_t>(terms, 1));
  if (!(bound > 0.0)) return 0.0;
  // All partial sums stay below 2^(e+1), the grid is 2^(e-50): 51 bits, exact in double.
  return std::ldexp(1.5, std::ilogb(bound) + 2);
}

/// The variant that was asked for.
const AssignVariant*& chosen_variant() {
  static const AssignVariant* variant = nullptr;
  return variant;
}

}  // namespace

AssignGrids make_grids(const SubVectors& v) {
  const double reach = 2.0 * v.max_abs;  // no distance along one axis is longer
  return {grid_magic(reach * v.max_importance, v.count),
          grid_magic(reach * reach * v.max_importance * static_cast<double>(v.dim), v.count),
          grid_magic(v.max_importance, v.count)};
}

ScoreGrid make_score_grid(const SubVectors& v, const CentroidTable& table) {
  // |x| and |c| are at most `reach`, so |c|^2/2 - x.c is at most 1.5 dim reach^2 <= 2^30, and twice that fits.
  const int reach = v.dim == 4 ? 13377 : 9458;
  const auto max_abs = static_cast<float>(v.max_abs);
  float largest = 0.0f, most = 0.0f;  // most: sum over t of |c_t| (|c_t| / 2 + |x_t|)
  for (int64_t t = 0; t < v.dim; ++t) {
    const float c = table.largest()[t];
    largest = std::max(largest, c);
    most += c * (0.5f * c + max_abs);
  }
  const float scale_x = static_cast<float>(reach) / max_abs;
  const float scale_c = largest > 1e-15f ? static_cast<float>(reach) / largest : scale_x;
  const auto d = static_cast<float>(v.dim);
  return {reach, scale_x, scale_c, 1.0f / (scale_x * scale_c),
          most * (2.02f * (d + 4.0f) * (0.5f * FLT_EPSILON)) + 4.0f * d * FLT_MIN};
}

std::span<const AssignVariant> assign_variants() {
  static const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  static const AssignVariant variants[] = {
      {"avx512vnni", avx512 && __builtin_cpu_supports("avx512vnni"), true, avx512vnni::assign},
      {"avx512", avx512, true, avx512::assign},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), true, avx2::assign},
      {"baseline", true, false, baseline::assign}};
  return variants;
}

const AssignVariant& assign_variant() {
  static const AssignVariant& fastest = *std::find_if(assign_variants().begin(), assign_variants().end(),
                                                      [](const AssignVariant& v) { return v.supported; });
  return chosen_variant() != nullptr ? *chosen_variant() : fastest;
}

void use_assign_variant(const AssignVariant* variant) {
  QN_ASSERT(variant == nullptr || variant->supported);
  chosen_variant() = variant;
}

int32_t nearest_centroid_exactly(const float* x, const CentroidTable& table, const float* importance) {
  const int64_t d = table.dim();
  double best = std::numeric_limits<double>::infinity();
  int32_t index = 0;
  for (int64_t k = 0; k < table.count(); ++k) {
    const float* c = table.values() + k * d;
    double distance = 0.0;
    for (int64_t t = 0; t < d; ++t) {
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]);
      // Written out: what is left to the compiler depends on what it compiles for, and so would the nearest of two.
      const double weighted = importance != nullptr ? static_cast<double>(importance[t]) * diff : diff;
      distance = std::fma(weighted, diff, distance);
    }
    if (distance < best) {
      best = distance;
      index = static_cast<int32_t>(k);
    }
  }
  return index;
}

CentroidTable::CentroidTable(std::span<const float> centroids, int64_t dim)
    : count_(std::ssize(centroids) / dim), dim_(dim), largest_(static_cast<size_t>(dim), 0.0f) {
  const int64_t padded = (count_ + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
  values_.assign(centroids.begin(), centroids.end());
  values_.resize(static_cast<size_t>(padded * dim), 0.0f);
  half_norm_.assign(static_cast<size_t>(padded), FLT_MAX);
  for (int64_t k = 0; k < count_; ++k) {
    double norm = 0.0;
    for (int64_t t = 0; t < dim; ++t) {
      const float c = centroids[static_cast<size_t>(k * dim + t)];
      float& largest = largest_[static_cast<size_t>(t)];
      norm += static_cast<double>(c) * static_cast<double>(c);
      largest = std::max(largest, std::abs(c));
    }
    half_norm_[static_cast<size_t>(k)] = static_cast<float>(0.5 * norm);
  }
  transposed_ = Buffer(values_.size() * sizeof(float) * 3);
  auto* to = reinterpret_cast<float*>(transposed_.data());
  for (int64_t lanes = 4; lanes <= kMaxLanes; lanes *= 2)
    for (int64_t group = 0; group < padded / lanes; ++group)
      for (int64_t t = 0; t < dim; ++t)
        for (int64_t lane = 0; lane < lanes; ++lane)
          *to++ = values_[static_cast<size_t>((group * lanes + lane) * dim + t)];
}

const float* CentroidTable::transposed(int lanes) const {
  const size_t table = lanes == 4 ? 0 : lanes == 8 ? 1 : 2;
  return reinterpret_cast<const float*>(transposed_.data()) + table * values_.size();
}

namespace {

/// What assign_range does, with the groups that had to be looked at as the result.
int64_t run_variant(const AssignVariant& variant, AssignTask task) {
  QN_ASSERT(task.table->dim() == task.vectors->dim && task.table->count() >= 1 && task.table->count() <= 65536);
  static thread_local Buffer scratch;
  const size_t bytes = static_cast<size_t>(2 * task.vectors->dim * kMaxLanes) * sizeof(float);
  if (scratch.size() < bytes) scratch = Buffer(bytes);
  task.scratch = reinterpret_cast<float*>(scratch.data());
  variant.assign(task);
  return task.looked_at;
}

}  // namespace

void assign_range(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                  double* stats, const AssignVariant* variant) {
  run_variant(variant != nullptr ? *variant : assign_variant(), {.vectors = &vectors,
                                                                 .begin = begin,
                                                                 .end = end,
                                                                 .table = &table,
                                                                 .codes = codes,
                                                                 .stats = stats,
                                                                 .grids = make_grids(vectors)});
}

void assign_parallel(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                     double* stats, AssignBounds* bounds) {
  const StatsLayout layout{table.count(), vectors.dim, vectors.weights_per_cluster()};
  constexpr int64_t kPart = 4 * kSubVectorChunk;
  const int64_t parts = (end - begin + kPart - 1) / kPart;
  const auto size = static_cast<size_t>(layout.size());
  if (stats != nullptr) std::fill(stats, stats + size, 0.0);
  const BoundStep* step = bounds != nullptr ? bounds->start(vectors, begin, end, table, codes) : nullptr;
  const AssignGrids grids = make_grids(vectors);
  int64_t looked_at = 0;
#pragma omp parallel if (parts > 1) reduction(+ : looked_at)
  {
    // Sums are exact, so parts may go to any thread and the tables may be added in any order.
    std::vector<double> mine(stats != nullptr ? size : 0, 0.0);
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = begin + part * kPart;
      looked_at += run_variant(assign_variant(), {.vectors = &vectors,
                                                  .begin = first,
                                                  .end = std::min(end, first + kPart),
                                                  .table = &table,
                                                  .codes = codes + (first - begin),
                                                  .stats = stats != nullptr ? mine.data() : nullptr,
                                                  .grids = grids,
                                                  .bounds = step});
    }
    if (stats != nullptr) {
#pragma omp critical(qn_kmeans_stats)
      for (size_t i = 0; i < size; ++i) stats[i] += mine[i];
    }
  }
  if (bounds != nullptr) bounds->finish(looked_at);
}

double largest_magnitude(std::span<const float> values) {
  const float* const from = values.data();
  const int64_t count = std::ssize(values);
  // Numbers without a sign are in the order of their bits, and what is no number is above infinity.
  uint32_t largest = 0;
#pragma omp parallel for reduction(max : largest) schedule(static) if (count > 1 << 16)
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(from[i]) & 0x7fffffffU);
  const auto magnitude = static_cast<double>(std::bit_cast<float>(largest));
  return std::isnan(magnitude) ? std::numeric_limits<double>::infinity() : magnitude;
}

}  // namespace qn
