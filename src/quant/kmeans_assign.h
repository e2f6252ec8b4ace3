// Assignment of sub-vectors to centroids, written once and compiled once per instruction set: include it after defining
// QN_ISA (a namespace of its own) and QN_LANES (floats in a register), inside that instruction set's target pragma.
// Nothing here may instantiate a template of the standard library: the linker could take this copy, with instructions
// the processor lacks, for everybody else's. Compiled without contraction into fused operations, so that sums are the
// same on all processors; scores, which need not be, ask for them explicitly.
#include <cfloat>
#include <cstdint>

#include "quant/kmeans_columns.h"
#include "quant/kmeans_kernel.h"
#include "quant/kmeans_lanes.h"
#if QN_LANES >= 8
#include "quant/kmeans_bounded.h"
#include "quant/kmeans_filter.h"
#endif

namespace qn::QN_ISA {
namespace {

static_assert(kMaxLanes % kLanes == 0, "tables are padded to whole registers");

/// Registers of sub-vectors handled together: they share the loads of a centroid's values.
constexpr int kColumns = 2;
constexpr int kBatch = kColumns * kLanes;
/// Centroids whose scores exist at a time, times kColumns accumulators.
constexpr int kTogether = kLanes >= 16 ? 8 : 4;
/// A group is one register of centroids in the second look at the best group.
constexpr int kGroup = kLanes;

template <typename T>
inline T to_grid(T value, double magic) {
  return (value + magic) - magic;
}

inline void add_to(double* sum, Four term) {
  Four v;
  __builtin_memcpy(&v, sum, sizeof v);
  v += term;
  __builtin_memcpy(sum, &v, sizeof v);
}

/// The loop over sub-vectors for one block size (D; 0: known at run time). Scores are |c|^2/2 - x.c, so the smallest is
/// the nearest's.
template <int D>
class Assigner {
 public:
  explicit Assigner(const AssignTask& task)
      : v_(*task.vectors),
        table_(*task.table),
        grids_(task.grids),
        d_(D > 0 ? D : v_.dim),
        layout_{table_.count(), v_.dim, v_.weights_per_cluster()},
        x_(reinterpret_cast<Lanes*>(task.scratch)) {}

  void run(AssignTask& task) {
#if QN_LANES >= 8
    if constexpr (D == 4 || D == 8)
      if (task.bounds != nullptr)
        return BoundedAssigner<D>(task).run(
            task, [&](int64_t m, int n, const uint16_t* codes) { add(m, n, codes, task.stats); });
#endif
#if QN_LANES >= 8
    if constexpr (D == 4 || D == 8) {
      if (GroupFilter<D>::suits(v_, table_)) {
        const GroupFilter<D> filter(v_, table_);
        return run(task, [&](int64_t m, int n, uint16_t* codes) { assign_filtered(filter, m, n, codes); });
      }
    }
#endif
    run(task, [&](int64_t m, int n, uint16_t* codes) { assign(m, n, codes); });
  }

 private:
  template <typename F>
  void run(const AssignTask& task, const F& assign_batch) {
    for (int64_t m = task.begin; m < task.end; m += kBatch) {
      const int n = static_cast<int>(task.end - m < kBatch ? task.end - m : kBatch);
      uint16_t* codes = task.codes + (m - task.begin);
      assign_batch(m, n, codes);
      add(m, n, codes, task.stats);
    }
  }

  void add(int64_t m, int n, const uint16_t* codes, double* stats) const {
    if (stats == nullptr) return;
    v_.weighted() ? add<true>(m, n, codes, stats) : add<false>(m, n, codes, stats);
  }

  int64_t dim() const { return D > 0 ? D : d_; }

  /// x_[column][t] holds element t of kLanes sub-vectors. Unused lanes repeat the last sub-vector.
  void load(int64_t m, int n) {
    const int64_t d = dim();
    for (int column = 0; column < kColumns; ++column) {
      float* x = reinterpret_cast<float*>(x_ + column * d);
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t at = m + (column * kLanes + lane < n ? column * kLanes + lane : n - 1);
        const float* from = v_.data + at * d;
        for (int64_t t = 0; t < d; ++t) x[t * kLanes + lane] = from[t];
      }
    }
  }

  /// Bound on the float32 error of a difference of two scores: 2 * (d + 4) roundings of numbers no larger than
  /// sum_t |c_t| * (|c_t| / 2 + |x_t|), plus what underflow can lose.
  Lanes tolerance(int column) const {
    const int64_t d = dim();
    const float* largest = table_.largest();
    Lanes bound{};
    for (int64_t t = 0; t < d; ++t) {
      const Lanes x = x_[column * d + t];
      const Lanes magnitude = x < 0.0f ? -x : x;
      bound += largest[t] * (0.5f * largest[t] + magnitude);
    }
    const float roundings = 2.0f * static_cast<float>(d + 4) * (0.5f * FLT_EPSILON);
    return bound * (1.01f * roundings) + static_cast<float>(4 * d) * FLT_MIN;
  }

  /// Smallest scores of kTogether centroids from k on, for each lane of each column.
  void smallest_scores(int64_t k, Lanes* smallest) const {
    const int64_t d = dim();
    const float* c = table_.values() + k * d;
    Lanes score[kTogether][kColumns];
    for (int q = 0; q < kTogether; ++q)
      for (int column = 0; column < kColumns; ++column) score[q][column] = splat(table_.half_norm()[k + q]);
#pragma GCC unroll 9
    for (int64_t t = 0; t < d; ++t)
      for (int q = 0; q < kTogether; ++q) {
        const Lanes value = splat(c[q * d + t]);
        for (int column = 0; column < kColumns; ++column)
          score[q][column] = minus_product(score[q][column], value, x_[column * d + t]);
      }
    for (int width = kTogether / 2; width > 0; width /= 2)
      for (int q = 0; q < width; ++q)
        for (int column = 0; column < kColumns; ++column)
          score[q][column] = smaller(score[q][column], score[q + width][column]);
    for (int column = 0; column < kColumns; ++column) smallest[column] = smaller(smallest[column], score[0][column]);
  }

  /// The group of the nearest centroid of each sub-vector of the batch; -1 where another group is too close to tell.
  /// Only centroids whose score is at most limits[i] can be the nearest.
  void nearest_groups(int32_t* group, float* limits) const {
    BestGroup found[kColumns];
    for (BestGroup& f : found) f = {splat(FLT_MAX), splat(FLT_MAX), LanesInt{}};
    const auto groups = static_cast<int32_t>((table_.count() + kGroup - 1) / kGroup);
    for (int32_t g = 0; g < groups; ++g) {
      Lanes smallest[kColumns];
      for (Lanes& s : smallest) s = splat(FLT_MAX);
      for (int k = 0; k < kGroup; k += kTogether) smallest_scores(int64_t{g} * kGroup + k, smallest);
      for (int column = 0; column < kColumns; ++column) found[column].offer(smallest[column], g);
    }
    for (int column = 0; column < kColumns; ++column) {
      const BestGroup& f = found[column];
      const Lanes difference = tolerance(column), limit = f.best + difference;
      const LanesInt result = (f.second - f.best) <= difference ? LanesInt{} - 1 : f.group;
      __builtin_memcpy(group + column * kLanes, &result, sizeof result);
      __builtin_memcpy(limits + column * kLanes, &limit, sizeof limit);
    }
  }

  void assign(int64_t m, int n, uint16_t* codes) {
    load(m, n);
    int32_t group[kBatch];
    float limits[kBatch];
    nearest_groups(group, limits);
    const int64_t d = dim();
    const float* transposed = table_.transposed(kLanes);
    for (int i = 0; i < n; ++i) {
      const float* x = v_.data + (m + i) * d;
      const int32_t code = group[i] < 0 ? -1 : nearest_in_group(transposed, group[i], x, limits[i]);
      codes[i] = static_cast<uint16_t>(code < 0 ? nearest_centroid_exactly(x, table_) : code);
    }
  }

  /// Scores of a group's centroids for one sub-vector, one centroid a lane.
  Lanes group_scores(const float* transposed, int32_t g, const float* x) const {
    const int64_t d = dim();
    const auto* c = reinterpret_cast<const Lanes*>(transposed + int64_t{g} * kGroup * d);
    Lanes score;
    __builtin_memcpy(&score, table_.half_norm() + int64_t{g} * kGroup, sizeof score);
    for (int64_t t = 0; t < d; ++t) score = minus_product(score, c[t], splat(x[t]));
    return score;
  }

  /// The nearest centroid of a group to one sub-vector; -1 when a second one is too close to tell.
  int32_t nearest_in_group(const float* transposed, int32_t g, const float* x, float limit) const {
    const uint32_t near = at_most(group_scores(transposed, g, x), splat(limit));
    return near != 0 && (near & (near - 1)) == 0 ? g * kGroup + __builtin_ctz(near) : -1;
  }

#if QN_LANES >= 8
  using Filter = GroupFilter<(D == 8 ? 8 : 4)>;

  void assign_filtered(const Filter& filter, int64_t m, int n, uint16_t* codes) const {
    typename Filter::Candidates found;
    const float *x = v_.data + m * D, *transposed = table_.transposed(kLanes);
    filter.select(x, n, found);
    for (int i = 0; i < n; ++i, x += D) {
      const uint32_t groups = found.groups[i];
      int32_t code = -1;
      if ((groups & (groups - 1)) == 0) code = nearest_in_group(transposed, __builtin_ctz(groups), x, found.limit[i]);
      if (code < 0) code = nearest_of_groups(transposed, groups, x, filter.rounding());
      codes[i] = static_cast<uint16_t>(code < 0 ? nearest_centroid_exactly(x, table_) : code);
    }
  }

  /// The nearest centroid of several groups; -1 when a second one is within `rounding` of it.
  int32_t nearest_of_groups(const float* transposed, uint32_t groups, const float* x, float rounding) const {
    Lanes scores[32], smallest = splat(FLT_MAX);
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1) {
      const int g = __builtin_ctz(rest);
      scores[g] = group_scores(transposed, g, x);
      smallest = smaller(smallest, scores[g]);
    }
    const float best = smallest_lane(smallest);
    int32_t code = -1;
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1) {
      const int g = __builtin_ctz(rest);
      const uint32_t near = at_most(scores[g], splat(best + rounding));
      if (near == 0) continue;
      if (code >= 0 || (near & (near - 1)) != 0) return -1;
      code = g * kGroup + __builtin_ctz(near);
    }
    return code;
  }
#endif

  /// A row's factor is common to all centroids: it matters to the sums only.
  double row_importance_of(int64_t m) const {
    return v_.row_importance != nullptr ? static_cast<double>(v_.row_importance[m / v_.blocks_per_row]) : 1.0;
  }

  /// Adds sub-vectors m .. m + n - 1 to the sums of their clusters. Squared errors of one are summed by element number
  /// modulo 4, then (0 + 2) + (1 + 3): the same order everywhere.
  template <bool Weighted>
  void add(int64_t m, int n, const uint16_t* codes, double* stats) const {
    const int64_t d = dim();
    const AssignGrids grids = grids_;  // a copy: the sums could alias the original
    double *const counts = stats + layout_.count(0), *const errors = stats + layout_.error(0);
    double* const residuals = stats + layout_.residual(0);
    double* const weights = Weighted ? stats + layout_.weight(0) : nullptr;
    for (int i = 0; i < n; ++i) {
      const int64_t code = codes[i];
      const float *x = v_.data + (m + i) * d, *c = table_.values() + code * d;
      const double row = Weighted ? row_importance_of(m + i) : 1.0;
      Four error{};
      int64_t t = 0;
      for (; t + 4 <= d; t += 4) {
        const Four diff = widen(x + t) - widen(c + t), moment = row * diff;
        add_to(residuals + code * d + t, to_grid(moment, grids.residual));
        error += moment * diff;
      }
      for (; t < d; ++t) {
        const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]), moment = row * diff;
        residuals[code * d + t] += to_grid(moment, grids.residual);
        error[t % 4] += moment * diff;
      }
      counts[code] += 1.0;
      if constexpr (Weighted) weights[code] += to_grid(row, grids.weight);
      errors[code] += to_grid((error[0] + error[2]) + (error[1] + error[3]), grids.error);
    }
  }

  const SubVectors& v_;
  const CentroidTable& table_;
  const AssignGrids grids_;
  const int64_t d_;
  const StatsLayout layout_;
  Lanes* const x_;
};

}  // namespace

void assign(AssignTask& task) {
  if (task.vectors->column_importance != nullptr) return ColumnAssigner(task).run(task);
  switch (task.vectors->dim) {
    case 4:
      return Assigner<4>(task).run(task);
    case 8:
      return Assigner<8>(task).run(task);
    case 9:
      return Assigner<9>(task).run(task);
    default:
      return Assigner<0>(task).run(task);
  }
}

}  // namespace qn::QN_ISA
