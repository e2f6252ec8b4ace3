// Assignment where columns have importances of their own: of sub-vector m, which covers the columns with importances h,
// the squared distance to a centroid is sum_t h_t (x_t - c_t)^2. That is another norm for every block column, so
// nothing but centroids can be prepared once for all sub-vectors: one sub-vector at a time, a centroid a lane. Included
// by kmeans_assign.h, once per instruction set.
#pragma once

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_kernel.h"
#include "quant/kmeans_lanes.h"

namespace qn::QN_ISA {
namespace {

/// Scores are sum_t c_t (h_t c_t / 2 - h_t x_t): half the squared distance but for what is common to all centroids.
class ColumnAssigner {
 public:
  explicit ColumnAssigner(const AssignTask& task)
      : v_(*task.vectors),
        table_(*task.table),
        grids_(task.grids),
        layout_{table_.count(), v_.dim, v_.weights_per_cluster()},
        half_(task.scratch),
        product_(task.scratch + v_.dim) {}

  void run(const AssignTask& task) {
    for (int64_t m = task.begin; m < task.end; ++m) {
      const float *x = v_.data + m * v_.dim, *h = v_.column_importance + m % v_.blocks_per_row * v_.dim;
      int32_t code = nearest(x, h);
      if (code < 0) code = nearest_centroid_exactly(x, table_, h);
      task.codes[m - task.begin] = static_cast<uint16_t>(code);
      if (task.stats != nullptr) add(m, x, h, code, task.stats);
    }
  }

 private:
  static constexpr int kTogether = 4;  // groups of centroids, a lane each, whose scores are computed side by side

  /// Bound on the float32 error of a difference of two scores: of every term at most 3 roundings and those of the sum.
  float tolerance() const {
    float bound = 0.0f;
    for (int64_t t = 0; t < v_.dim; ++t) {
      const float largest = table_.largest()[t], magnitude = product_[t] < 0.0f ? -product_[t] : product_[t];
      bound += largest * (half_[t] * largest + magnitude);
    }
    const auto d = static_cast<float>(v_.dim);
    return bound * (1.01f * 2.0f * (d + 8.0f) * (0.5f * FLT_EPSILON)) + 8.0f * d * FLT_MIN;
  }

  /// Looks at N groups of centroids, a register each, from group `first` on.
  template <int N>
  void offer(const float* transposed, int64_t first) {
    const int64_t d = v_.dim;
    Lanes score[N] = {};
    for (int64_t t = 0; t < d; ++t) {
      const Lanes half = splat(half_[t]), product = splat(product_[t]);
      for (int q = 0; q < N; ++q) {
        Lanes c;
        __builtin_memcpy(&c, transposed + ((first + q) * d + t) * kLanes, sizeof c);
        score[q] = minus_product(score[q], c, minus_product(product, half, c));
      }
    }
    for (int q = 0; q < N; ++q) {
      const auto g = static_cast<int32_t>(first + q);
      if (int64_t{g + 1} * kLanes > table_.count()) hide_padding(g, score[q]);
      found_.offer(score[q], g);
    }
  }

  /// -1 when a second centroid is too close to tell.
  int32_t nearest(const float* x, const float* h) {
    for (int64_t t = 0; t < v_.dim; ++t) {
      half_[t] = 0.5f * h[t];
      product_[t] = h[t] * x[t];
    }
    const float* transposed = table_.transposed(kLanes);
    const int64_t groups = (table_.count() + kLanes - 1) / kLanes;
    found_ = {splat(FLT_MAX), splat(FLT_MAX), LanesInt{}};
    int64_t first = 0;
    for (; first + kTogether <= groups; first += kTogether) offer<kTogether>(transposed, first);
    for (; first < groups; ++first) offer<1>(transposed, first);
    return only_nearest();
  }

  /// What fills the table up to whole registers lies infinitely far away.
  void hide_padding(int32_t g, Lanes& score) const {
    for (int lane = 0; lane < kLanes; ++lane)
      if (int64_t{g} * kLanes + lane >= table_.count()) score[lane] = FLT_MAX;
  }

  int32_t only_nearest() const {
    int nearest = 0;
    for (int lane = 1; lane < kLanes; ++lane)
      if (found_.best[lane] < found_.best[nearest]) nearest = lane;
    const Lanes limit = splat(found_.best[nearest] + tolerance());
    const bool alone = at_most(found_.best, limit) == 1U << nearest && at_most(found_.second, limit) == 0;
    return alone ? found_.group[nearest] * kLanes + nearest : -1;
  }

  /// Adds a sub-vector to the sums of its cluster, which are rounded to grids.
  void add(int64_t m, const float* x, const float* h, int32_t code, double* stats) const {
    const int64_t d = v_.dim;
    const float* c = table_.values() + code * d;
    const double row =
        v_.row_importance != nullptr ? static_cast<double>(v_.row_importance[m / v_.blocks_per_row]) : 1.0;
    double *const residuals = stats + layout_.residual(code), *const weights = stats + layout_.weight(code),
                  error = 0.0;
    for (int64_t t = 0; t < d; ++t) {
      const double weight = row * static_cast<double>(h[t]);
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]), moment = weight * diff;
      residuals[t] += (moment + grids_.residual) - grids_.residual;
      weights[t] += (weight + grids_.weight) - grids_.weight;
      error += moment * diff;
    }
    stats[layout_.count(code)] += 1.0;
    stats[layout_.error(code)] += (error + grids_.error) - grids_.error;
  }

  const SubVectors& v_;
  const CentroidTable& table_;
  const AssignGrids grids_;
  const StatsLayout layout_;
  float *const half_, *const product_;  // of the sub-vector at hand: h / 2, h x
  BestGroup found_;                     // by lane
};

}  // namespace
}  // namespace qn::QN_ISA
