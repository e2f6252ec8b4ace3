// Sums of a batch by cluster. All terms are multiples of a grid on which no sum of them rounds (see assign_range()):
// addition of these doubles is associative, so atomic additions in any order give the same bits.
#pragma once

#include "quant/cuda/kmeans_nearest.cuh"

namespace qn::cuda {

/// To the multiple of a grid that adding and subtracting `magic` gives.
__device__ inline double to_grid(double value, double magic) { return (value + magic) - magic; }

__device__ __forceinline__ void add_globally(double* sum, double term) { atomicAdd(in_global(sum), term); }

inline constexpr int kBins = 1024;

/// For sorting a batch by code; codes share a bin where there are more of them.
struct CodeBins {
  int start[kBins];
  int partial[kBlock];
};

/// batch.list = the batch's sub-vectors by rising code (by bin, where bins hold several codes), in no particular order
/// within. The whole block calls it.
__device__ inline void sort_by_code(int n_centroids, int n, BatchCodes& batch, CodeBins& bins) {
  const auto thread = static_cast<int>(threadIdx.x);
  int shift = 0;
  while (((n_centroids - 1) >> shift) >= kBins) ++shift;
  for (int b = thread; b < kBins; b += kBlock) bins.start[b] = 0;
  __syncthreads();
  for (int i = thread; i < n; i += kBlock) atomicAdd(&bins.start[batch.code[i] >> shift], 1);
  __syncthreads();
  constexpr int kPart = kBins / kBlock;
  int* part = bins.start + thread * kPart;
  int count = 0, before = 0;
  for (int b = 0; b < kPart; ++b) count += part[b];
  bins.partial[thread] = count;
  __syncthreads();
  for (int p = 0; p < thread; ++p) before += bins.partial[p];
  for (int b = 0; b < kPart; ++b) {
    const int size = part[b];
    part[b] = before;
    before += size;
  }
  __syncthreads();
  for (int i = thread; i < n; i += kBlock)
    batch.list[atomicAdd(&bins.start[batch.code[i] >> shift], 1)] = static_cast<uint16_t>(i);
  __syncthreads();
}

/// Factor of sub-vector m's row.
__device__ inline double row_importance_of(const KMeansLayer& layer, int64_t m) {
  if (layer.row_importance == nullptr) return 1.0;
  return static_cast<double>(
      layer.row_importance[static_cast<uint32_t>(m) / static_cast<uint32_t>(layer.blocks_per_row)]);
}

/// (0 + 2) + (1 + 3): the order in which the CPU adds up the squared errors of one sub-vector.
__device__ inline double error_of(const double (&error)[4]) { return (error[0] + error[2]) + (error[1] + error[3]); }

/// Sums of sub-vectors of one cluster that follow each other.
template <int D>
struct Run {
  double residual[D], weight, error;
  int count;

  __device__ __forceinline__ void clear() {
    QN_UNROLL
    for (int t = 0; t < D; ++t) residual[t] = 0.0;
    weight = error = 0.0;
    count = 0;
  }

  /// The same operations as Assigner::add() in kmeans_assign.h.
  __device__ __forceinline__ void add(const KMeansLayer& layer, int64_t m, const float (&c)[D]) {
    const int d = layer.dim;
    float x[D];
    load_vector(layer, m, x);
    const double row = row_importance_of(layer, m);
    double squares[4] = {};
    QN_UNROLL
    for (int t = 0; t < D; ++t) {
      if (t >= d) break;
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]), moment = times(row, diff);
      residual[t] += to_grid(moment, layer.grids.residual);
      squares[t % 4] += times(moment, diff);
    }
    weight += to_grid(row, layer.grids.weight);
    error += to_grid(error_of(squares), layer.grids.error);
    ++count;
  }

  __device__ __forceinline__ void add_to(const KMeansLayer& layer, int k) const {
    add_globally(layer.counts + k, static_cast<double>(count));
    add_globally(layer.errors + k, error);
    const int d = layer.dim;
    if (layer.weights != nullptr) add_globally(layer.weights + k, weight);
    double* const residuals = layer.residuals + int64_t{k} * d;
    QN_UNROLL
    for (int t = 0; t < D; ++t) {
      if (t >= d) break;
      add_globally(residuals + t, residual[t]);
    }
  }
};

/// Adds the batch to the layer's sums. Every thread takes an equal part of the sorted list, so a cluster costs a thread
/// one addition to memory per sum, and a batch that is all in one cluster no more time than any other.
template <int D>
__device__ void add_runs(const KMeansLayer& layer, int64_t first, int n, const BatchCodes& batch) {
  const int part = (n + kBlock - 1) / kBlock, begin = static_cast<int>(threadIdx.x) * part;
  const int end = begin + part < n ? begin + part : n;
  const int d = layer.dim;
  Run<D> run;
  run.clear();
  float c[D] = {};
  int current = -1;
  for (int i = begin; i < end; ++i) {
    const int at = batch.list[i], code = batch.code[at];
    if (code != current) {
      if (current >= 0) run.add_to(layer, current);
      run.clear();
      current = code;
      QN_UNROLL
      for (int t = 0; t < D; ++t) c[t] = t < d ? in_global(layer.centroids)[code * d + t] : 0.0f;
    }
    run.add(layer, first + at, c);
  }
  if (current >= 0) run.add_to(layer, current);
}

/// The same for sub-vectors of any size, element by element.
__device__ inline void add_any_size(const KMeansLayer& layer, int64_t first, int n, const BatchCodes& batch) {
  const int d = layer.dim;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kBlock) {
    const int64_t m = first + i, k = batch.code[i];
    const float *x = in_global(layer.data) + m * d, *c = in_global(layer.centroids) + k * d;
    const double row = row_importance_of(layer, m);
    double squares[4] = {};
    for (int t = 0; t < d; ++t) {
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]), moment = times(row, diff);
      add_globally(layer.residuals + k * d + t, to_grid(moment, layer.grids.residual));
      squares[t % 4] += times(moment, diff);
    }
    add_globally(layer.counts + k, 1.0);
    if (layer.weights != nullptr) add_globally(layer.weights + k, to_grid(row, layer.grids.weight));
    add_globally(layer.errors + k, to_grid(error_of(squares), layer.grids.error));
  }
}

}  // namespace qn::cuda
