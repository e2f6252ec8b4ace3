// The inner loop of k-means: distance, nearest centroid and partial sums in one pass over sub-vectors, never an N x K
// matrix. Everything here is a pure function of sub-vector and centroids: no result depends on the number of threads,
// on how sub-vectors are shared out, or on the vector width of the machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace qn {

class AssignBounds;

/// The sub-vectors of one weight in memory order: sub-vector m is data[m*dim : (m+1)*dim], that is row m / J, block
/// column m % J with J = blocks_per_row. Walking memory order keeps reads sequential; codes are renumbered at the end.
struct SubVectors {
  const float* data = nullptr;
  int64_t count = 0;
  int64_t dim = 1;
  int64_t blocks_per_row = 1;
  const float* row_importance = nullptr;  ///< optional [rows]: weight of each row in the squared error, >= 0
  double max_abs = 0.0;                   ///< at least the largest |element| of data and of any centroid
  double max_importance = 1.0;            ///< at least the largest importance, of rows times that of columns
  /// Optional [blocks_per_row * dim]: weight of each column in the squared error, >= 0.
  const float* column_importance = nullptr;

  bool weighted() const { return row_importance != nullptr; }
  /// Sums of importances that a cluster needs: none, one, or one per element.
  int64_t weights_per_cluster() const { return column_importance != nullptr ? dim : weighted() ? 1 : 0; }
};

/// Most floats in a register of any instruction set: tables are padded to whole registers.
constexpr int kMaxLanes = 16;

/// Centroids prepared for assignment: padded to a multiple of kMaxLanes with zeros that lie infinitely far away.
class CentroidTable {
 public:
  /// `centroids` is [K, dim].
  CentroidTable(std::span<const float> centroids, int64_t dim);
  int64_t count() const { return count_; }
  int64_t dim() const { return dim_; }
  const float* values() const { return values_.data(); }        ///< [padded K, dim]
  const float* half_norm() const { return half_norm_.data(); }  ///< [padded K]: |c|^2 / 2; FLT_MAX in the padding
  const float* largest() const { return largest_.data(); }      ///< [dim]: max over k of |c_t|
  /// [padded K / lanes, dim, lanes]: element t of `lanes` centroids side by side, aligned to 64 bytes.
  const float* transposed(int lanes) const;

 private:
  int64_t count_, dim_;
  std::vector<float> values_, half_norm_, largest_;
  Buffer transposed_;  ///< one table per power of two of lanes up to kMaxLanes
};

/// Where one layer's sums live inside a flat vector of doubles (so that all layers travel in one reduction).
/// Per cluster: count [K], squared error [K], sum of (weighted) residuals x - c [K, dim], and with importances of rows
/// their sum [K], with importances of columns the sums of both, multiplied, for every element [K, dim]. Residuals
/// rather than vectors: equal vectors then give exactly their own mean.
struct StatsLayout {
  int64_t n_centroids = 0;
  int64_t dim = 1;
  int64_t weights = 0;  ///< SubVectors::weights_per_cluster()

  int64_t size() const { return n_centroids * (2 + dim + weights); }
  int64_t count(int64_t k) const { return k; }
  int64_t error(int64_t k) const { return n_centroids + k; }
  int64_t residual(int64_t k) const { return 2 * n_centroids + k * dim; }
  int64_t weight(int64_t k) const { return n_centroids * (2 + dim) + k * weights; }
};

/// Grids that the terms of the sums are rounded to: adding and subtracting one of these numbers does it.
struct AssignGrids {
  double residual, error, weight;
};
AssignGrids make_grids(const SubVectors& vectors);

/// What 16-bit integers stand for in scores |c|^2/2 - x.c, for blocks of 4 and 8 floats: x and c in units of 1 /
/// scale_x and 1 / scale_c, scores in `unit`s. They are at most `reach`, scores at most 2^30.
struct ScoreGrid {
  int reach;
  float scale_x, scale_c, unit;
  /// Bound on the float32 error of a difference of two scores in float.
  float rounding;

  float most_score(int64_t dim) const { return 1.5f * static_cast<float>(dim * reach * reach); }
};
/// Whether scales of numbers of this size are numbers that float has, with room to spare.
inline bool has_score_grid(const SubVectors& v) { return v.max_abs > 1e-15 && v.max_abs < 1e15; }
ScoreGrid make_score_grid(const SubVectors& vectors, const CentroidTable& table);

/// Groups of centroids that a sub-vector has a bound for (kmeans_bounds.h), and most centroids in all of them.
constexpr int64_t kBoundGroups = 8, kMostBoundCentroids = 1024;

/// An E-step that begins with bounds from the one before; AssignBounds::start() prepares it.
struct BoundStep {
  const CentroidTable* grouped = nullptr;  ///< the centroids, one group after another
  const uint16_t* numbers = nullptr;       ///< of the centroid at a place of it
  const uint16_t* places = nullptr;        ///< of a centroid, by number
  int64_t group_size = 0;                  ///< of all groups but the last; a multiple of kMaxLanes
  float unit = 1.0f;
  uint8_t* bytes = nullptr;  ///< [.., kBoundGroups], the first ones of sub-vector `first`
  int64_t first = 0;
  uint8_t fall[kBoundGroups] = {};  ///< to be taken off the bytes, which end at 0
  float slack[kBoundGroups] = {};   ///< after that distances may still be lower by so many units; less than 1

  ScoreGrid grid = {};
  /// [kBoundGroups * group_size / kMaxLanes, dim / 2, kMaxLanes, 2]: elements 2 p and 2 p + 1 of -c on the grid;
  /// aligned to 64 bytes
  const int16_t* centroids = nullptr;
  const int32_t* norms = nullptr;  ///< [kBoundGroups * group_size]: |c|^2 / 2; INT32_MAX where there is no centroid
  /// A score may be wrong by error + error_per_length * |x|.
  float error = 0.0f, error_per_length = 0.0f;
};

/// Everything that one call of an instruction set's `assign` works on.
struct AssignTask {
  const SubVectors* vectors;
  int64_t begin, end;  ///< range of sub-vectors
  const CentroidTable* table;
  uint16_t* codes;  ///< codes[0] belongs to sub-vector `begin`
  double* stats;    ///< added to, unless null
  AssignGrids grids;
  float* scratch = nullptr;  ///< 2 * dim * kMaxLanes floats, aligned to 64 bytes
  /// Null, or bounds to use and to renew; `codes` are then those of the E-step before. For variants that know them.
  const BoundStep* bounds = nullptr;
  int64_t looked_at = 0;  ///< result: groups of centroids that bounds did not exclude, over all sub-vectors
};

/// The same function compiled for one instruction set. All give the same codes and the same sums, bit by bit.
struct AssignVariant {
  const char* name;
  bool supported;  ///< by this processor
  bool bounds;     ///< knows AssignTask::bounds, and gains by them
  void (*assign)(AssignTask&);
};
/// Fastest first; the last one is always supported.
std::span<const AssignVariant> assign_variants();
/// The one in use: the fastest that this processor can run; another one for tests and measurements (null: the fastest
/// again), while nothing is being assigned.
const AssignVariant& assign_variant();
void use_assign_variant(const AssignVariant* variant);

/// Nearest centroid by distances in double, added up element by element with fused multiply-adds; the lowest index wins
/// ties. `importance` [dim] weighs elements (null: all alike).
int32_t nearest_centroid_exactly(const float* x, const CentroidTable& table, const float* importance = nullptr);

/// Assigns sub-vectors [begin, end) to their nearest centroid (lowest index on ties) and adds their sums to `stats`
/// (laid out by StatsLayout) unless it is null. codes[0] belongs to sub-vector `begin`.
///
/// Distances are compared in float32 as |c|^2/2 - x.c; whenever a second centroid comes within the rounding bound of
/// that expression, all distances of this sub-vector are recomputed in double and decide. So the codes are those of
/// double arithmetic whatever the order of operations, at float32 speed.
/// Sums are exact: every term is first rounded to a grid so coarse that no sum of `count` terms can round, and so fine
/// (about 2^-51 of the largest possible sum) that a mean is not visibly changed. Exact sums are associative.
void assign_range(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                  double* stats, const AssignVariant* variant = nullptr);

/// assign_range over [begin, end) with OpenMP. `stats` (may be null) is overwritten with the sums of the range.
/// With `bounds`, `codes` must be those of the last call with the same bounds, if there was one.
void assign_parallel(const SubVectors& vectors, int64_t begin, int64_t end, const CentroidTable& table, uint16_t* codes,
                     double* stats, AssignBounds* bounds = nullptr);

/// Largest magnitude; infinity when a value is not a number.
double largest_magnitude(std::span<const float> values);

/// Sub-vectors per unit of work: shares of ranks and threads are whole numbers of these.
constexpr int64_t kSubVectorChunk = 1024;

}  // namespace qn
