#include "quant/kmeans_kernel.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace qn {
namespace {

// One sub-vector per lane: the running minimum needs no reduction across lanes, any K works without padding, and
// centroid values are broadcast from cache.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t LanesInt __attribute__((vector_size(kLanes * sizeof(int32_t))));

/// Adding and subtracting this rounds a double to a multiple of ulp(magic).
double grid_magic(double largest_term, int64_t terms) {
  const double bound = largest_term * static_cast<double>(std::max<int64_t>(terms, 1));
  if (!(bound > 0.0)) return 0.0;
  // All partial sums stay below 2^(e+1), the grid is 2^(e-50): 51 bits, exact in double.
  return std::ldexp(1.5, std::ilogb(bound) + 2);
}

struct Grids {
  double residual, error, weight;
};

Grids make_grids(const SubVectors& v) {
  const double reach = 2.0 * v.max_abs;  // no distance along one axis is longer
  return {grid_magic(reach * v.max_importance, v.count),
          grid_magic(reach * reach * v.max_importance * static_cast<double>(v.dim), v.count),
          grid_magic(v.max_importance, v.count)};
}

inline double to_grid(double value, double magic) { return (value + magic) - magic; }

/// Nearest centroid by distances in double; the lowest index wins ties.
int32_t nearest_exact(const float* x, const float* importance, const CentroidTable& table) {
  const int64_t d = table.dim();
  double best = std::numeric_limits<double>::infinity();
  int32_t index = 0;
  for (int64_t k = 0; k < table.count(); ++k) {
    const float* c = table.values() + k * d;
    double distance = 0.0;
    for (int64_t t = 0; t < d; ++t) {
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]);
      distance += diff * diff * (importance == nullptr ? 1.0 : static_cast<double>(importance[t]));
    }
    if (distance < best) {
      best = distance;
      index = static_cast<int32_t>(k);
    }
  }
  return index;
}

/// The nearest centroid of each lane so far, and how close the next one came.
struct Nearest {
  Lanes best = Lanes{} + FLT_MAX, second = Lanes{} + FLT_MAX;
  LanesInt index{};

  void offer(Lanes score, int32_t k) {
    const LanesInt less = score < best;
    const Lanes loser = best < score ? score : best;
    second = loser < second ? loser : second;
    best = score < best ? score : best;
    index = less ? (LanesInt{} + k) : index;
  }
};

/// Offers centroids k .. k + Count - 1 to kLanes sub-vectors given element by element: x[t] holds element t of all of
/// them (times the importance, when there is one). Several centroids at a time share loads and hide latency.
template <int Count, int D, bool Weighted>
inline void offer_centroids(const Lanes* x, const Lanes* importance, const CentroidTable& table, int32_t k,
                            Nearest& nearest) {
  const int64_t d = D > 0 ? D : table.dim();
  const float* c = table.values() + k * d;
  Lanes score[Count];
  for (int q = 0; q < Count; ++q) score[q] = Weighted ? Lanes{} : Lanes{} + table.half_norm()[k + q];
  for (int64_t t = 0; t < d; ++t) {
    for (int q = 0; q < Count; ++q) {
      const float value = c[q * d + t];
      if constexpr (Weighted)
        score[q] += value * ((0.5f * value) * importance[t] - x[t]);
      else
        score[q] -= value * x[t];
    }
  }
  for (int q = 0; q < Count; ++q) nearest.offer(score[q], k + q);
}

template <int D, bool Weighted>
inline Nearest nearest_lanes(const Lanes* x, const Lanes* importance, const CentroidTable& table) {
  constexpr int kTogether = 4;
  Nearest nearest;
  const auto count = static_cast<int32_t>(table.count());
  int32_t k = 0;
  for (; k + kTogether <= count; k += kTogether)
    offer_centroids<kTogether, D, Weighted>(x, importance, table, k, nearest);
  for (; k < count; ++k) offer_centroids<1, D, Weighted>(x, importance, table, k, nearest);
  return nearest;
}

/// Per-call state of the chunk loop for one block size.
template <int D, bool Weighted>
class Assigner {
 public:
  Assigner(const SubVectors& vectors, const CentroidTable& table)
      : v_(vectors),
        table_(table),
        d_(D > 0 ? D : vectors.dim),
        layout_{table.count(), vectors.dim, vectors.weighted()} {
    lanes_.resize(static_cast<size_t>(d_) * (Weighted ? 2 : 1));
    grids_ = make_grids(v_);
  }

  void run(int64_t begin, int64_t end, uint16_t* codes, double* stats) {
    for (int64_t m = begin; m < end; m += kLanes) {
      const int n = static_cast<int>(std::min<int64_t>(kLanes, end - m));
      assign(m, n, codes + (m - begin));
      if (stats == nullptr) continue;
      for (int lane = 0; lane < n; ++lane) {
        const uint16_t code = codes[m - begin + lane];
        v_.weighted() ? add<true>(m + lane, code, stats) : add<false>(m + lane, code, stats);
      }
    }
  }

 private:
  const float* importance_of(int64_t m) const {
    return Weighted ? v_.importance + (m % v_.blocks_per_row) * d_ : nullptr;
  }

  /// Unused lanes repeat the last sub-vector.
  void load(int64_t m, int n) {
    const int64_t d = D > 0 ? D : d_;
    float* x = reinterpret_cast<float*>(lanes_.data());
    float* w = x + d * kLanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t at = m + std::min(lane, n - 1);
      const float* importance = importance_of(at);
      for (int64_t t = 0; t < d; ++t) {
        const float value = v_.data[at * d + t];
        x[t * kLanes + lane] = Weighted ? value * importance[t] : value;
        if constexpr (Weighted) w[t * kLanes + lane] = importance[t];
      }
    }
  }

  /// Bound on the float32 error of a difference of two scores: 2 * (d + 4) roundings of numbers no larger than
  /// sum_t w * |c_t| * (|c_t| / 2 + |x_t|), plus what underflow can lose.
  Lanes tolerance() const {
    const Lanes* x = lanes_.data();
    const float* largest = table_.largest();
    Lanes bound{};
    for (int64_t t = 0; t < d_; ++t) {
      const Lanes magnitude = x[t] < 0.0f ? -x[t] : x[t];
      if constexpr (Weighted)
        bound += largest[t] * ((0.5f * largest[t]) * lanes_[static_cast<size_t>(d_ + t)] + magnitude);
      else
        bound += largest[t] * (0.5f * largest[t] + magnitude);
    }
    const float roundings = 2.0f * static_cast<float>(d_ + 4) * (0.5f * FLT_EPSILON);
    return bound * (1.01f * roundings) + static_cast<float>(4 * d_) * FLT_MIN;
  }

  void assign(int64_t m, int n, uint16_t* codes) {
    load(m, n);
    const Lanes tolerance = this->tolerance();
    const Nearest found = nearest_lanes<D, Weighted>(lanes_.data(), lanes_.data() + d_, table_);
    const LanesInt close = (found.second - found.best) <= tolerance;
    for (int lane = 0; lane < n; ++lane) {
      const int32_t index =
          close[lane] ? nearest_exact(v_.data + (m + lane) * d_, importance_of(m + lane), table_) : found.index[lane];
      codes[lane] = static_cast<uint16_t>(index);
    }
  }

  /// A row's factor is common to all centroids: it matters to the sums only.
  double row_importance_of(int64_t m) const {
    return v_.row_importance != nullptr ? static_cast<double>(v_.row_importance[m / v_.blocks_per_row]) : 1.0;
  }

  template <bool Means>
  void add(int64_t m, uint16_t code, double* stats) const {
    const float* x = v_.data + m * d_;
    const float* c = table_.values() + static_cast<int64_t>(code) * d_;
    const float* importance = importance_of(m);
    double* residual = stats + layout_.residual(code);
    const double residual_grid = grids_.residual, weight_grid = grids_.weight;
    double* weight = Means ? stats + layout_.weight(code) : nullptr;
    const double row = Means ? row_importance_of(m) : 1.0;
    const int64_t d = D > 0 ? D : d_;
    double error = 0.0;
#pragma omp simd reduction(+ : error)
    for (int64_t t = 0; t < d; ++t) {
      const double w = Weighted ? row * static_cast<double>(importance[t]) : row;
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]);
      residual[t] += to_grid(w * diff, residual_grid);
      error += w * diff * diff;
      if constexpr (Means) weight[t] += to_grid(w, weight_grid);
    }
    stats[layout_.count(code)] += 1.0;
    stats[layout_.error(code)] += to_grid(error, grids_.error);
  }

  const SubVectors& v_;
  const CentroidTable& table_;
  int64_t d_;
  StatsLayout layout_;
  std::vector<Lanes> lanes_;
  Grids grids_;
};

template <int D>
void assign_dim(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                double* stats) {
  if (vectors.importance != nullptr)
    Assigner<D, true>(vectors, table).run(begin, end, codes, stats);
  else
    Assigner<D, false>(vectors, table).run(begin, end, codes, stats);
}

}  // namespace

CentroidTable::CentroidTable(std::span<const float> centroids, int64_t dim)
    : centroids_(centroids),
      dim_(dim),
      half_norm_(centroids.size() / static_cast<size_t>(dim)),
      largest_(static_cast<size_t>(dim), 0.0f) {
  for (size_t k = 0; k < half_norm_.size(); ++k) {
    double norm = 0.0;
    for (size_t t = 0; t < largest_.size(); ++t) {
      const float c = centroids[k * largest_.size() + t];
      norm += static_cast<double>(c) * static_cast<double>(c);
      largest_[t] = std::max(largest_[t], std::abs(c));
    }
    half_norm_[k] = static_cast<float>(0.5 * norm);
  }
}

void assign_range(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                  double* stats) {
  QN_ASSERT(table.dim() == vectors.dim && table.count() >= 1 && table.count() <= 65536);
  switch (vectors.dim) {
    case 4:
      return assign_dim<4>(vectors, begin, end, table, codes, stats);
    case 8:
      return assign_dim<8>(vectors, begin, end, table, codes, stats);
    case 9:
      return assign_dim<9>(vectors, begin, end, table, codes, stats);
    default:
      return assign_dim<0>(vectors, begin, end, table, codes, stats);
  }
}

void assign_parallel(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                     double* stats) {
  const StatsLayout layout{table.count(), vectors.dim, vectors.weighted()};
  const int64_t chunks = (end - begin + kSubVectorChunk - 1) / kSubVectorChunk;
  const auto size = static_cast<size_t>(layout.size());
  if (stats != nullptr) std::fill(stats, stats + size, 0.0);
#pragma omp parallel if (chunks > 1)
  {
    // Sums are exact, so whole chunks may go to any thread and the tables may be added in any order.
    std::vector<double> mine(stats != nullptr ? size : 0, 0.0);
#pragma omp for schedule(dynamic, 4)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = begin + chunk * kSubVectorChunk;
      assign_range(vectors, first, std::min(end, first + kSubVectorChunk), table, codes + (first - begin),
                   stats != nullptr ? mine.data() : nullptr);
    }
    if (stats != nullptr) {
#pragma omp critical(qn_kmeans_stats)
      for (size_t i = 0; i < size; ++i) stats[i] += mine[i];
    }
  }
}

}  // namespace qn
