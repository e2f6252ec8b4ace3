// The kernels of k-means, for host code. All pointers are device memory; everything is queued on the stream of the
// calling thread's context.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/kmeans_backend.h"

namespace qn::cuda {

/// Sub-vectors that one block of threads assigns.
inline constexpr int kKMeansBatch = 4096;

/// One weight in an E-step.
struct KMeansLayer {
  const float* data;            ///< the whole weight
  const float* row_importance;  ///< [rows] or null
  const float* centroids;       ///< [K, dim]
  float* half_norm;             ///< [K]: |c|^2 / 2, made by kmeans_prepare()
  float* largest;               ///< [dim]: max over k of |c_t|, made by kmeans_prepare()
  uint16_t* codes;              ///< [end - begin]
  double *counts, *errors;      ///< [K]; added to, like the other sums
  double* residuals;            ///< [K, dim]
  double* weights;              ///< [K]; null where there are no row importances
  AssignGrids grids;
  int n_centroids, dim;  ///< K and elements of a sub-vector
  int64_t begin, end;    ///< the rank's sub-vectors
  int64_t blocks_per_row;
  int64_t first_batch;  ///< of the layer, in a launch over several: batches of kKMeansBatch sub-vectors
  bool aligned;         ///< every sub-vector starts at a multiple of 16 bytes
};

/// A launch works on `count` layers of one kind.
struct KMeansLaunch {
  const KMeansLayer* layers;  ///< [count], by rising first_batch
  int count;
  int64_t batches;  ///< of all layers
};

/// Kernels are compiled for sub-vectors of up to 4, 8 and 16 elements, and for any number (kind 0).
inline int kmeans_kind(int64_t dim) { return dim <= 4 ? 4 : dim <= 8 ? 8 : dim <= 16 ? 16 : 0; }

/// half_norm and largest of `count` layers.
void kmeans_prepare(const KMeansLayer* layers, int count);
/// Codes and sums of layers that are all of one kind.
void kmeans_assign(const KMeansLaunch& launch, int kind);
/// sums[2 b], sums[2 b + 1]: squares of decoded - original and of original in batch b.
void kmeans_squared_errors(const KMeansLaunch& launch, double* sums);
/// Raises *largest to the bits of the largest |value|; those of numbers that are none are beyond infinity's.
void kmeans_largest(const float* values, int64_t count, uint32_t* largest);
/// to[i, :] = data[numbers[i], :]
void kmeans_gather(float* to, const float* data, const int64_t* numbers, int64_t count, int64_t dim);

}  // namespace qn::cuda
