// The nearest centroid of every sub-vector of a batch: first in float32, in double where that cannot tell.
#pragma once

#include <cfloat>

#include "ops/cuda/launch.cuh"
#include "quant/cuda/intrinsics.cuh"
#include "quant/cuda/kmeans_kernels.h"

namespace qn::cuda {

inline constexpr int kBlock = 128;  // threads

/// Centroids are looked at in tiles, first the best group of a tile, then within it. Group g of a tile is its centroids
/// g, g + kGroups, g + 2 * kGroups, ...; neighbours in shared memory belong to different groups, so lanes that look
/// into groups of their own meet no bank twice, and all lanes reading the same ones get several at a time.
inline constexpr int kGroups = 32, kGroupSize = 8, kTile = kGroups * kGroupSize;

template <int D>
struct CentroidTile {
  alignas(16) float values[kGroupSize][D][kGroups];
  alignas(16) float starts[kGroupSize][kGroups];  ///< |c|^2 / 2; FLT_MAX beyond K
};
template <>
struct CentroidTile<0> {};

/// Where a block keeps the codes of its batch while it works on them.
struct BatchCodes {
  uint16_t code[kKMeansBatch];
  uint16_t list[kKMeansBatch];  ///< numbers of sub-vectors within the batch
  int doubtful;                 ///< of them in `list` while codes are being found
};

/// One thread's sub-vectors and what it knows of their scores, |c|^2/2 - x.c: the smallest is the nearest's.
template <int D>
struct Candidates {
  /// As many as registers hold: they share the loads of the centroids.
  static constexpr int kVectors = D > 8 ? 64 / D : 8;
  float x[kVectors][D];
  float best[kVectors], second[kVectors];  ///< of the groups' smallest scores
  int group[kVectors];                     ///< that has the best, counted through all tiles
  int code[kVectors];                      ///< -1: too close to tell
};

/// A score after one more element.
__device__ __forceinline__ float next_score(float score, float c, float x) { return fmaf(-c, x, score); }

/// to[t] = element t of sub-vector m, 0 beyond its last.
template <int D>
__device__ __forceinline__ void load_vector(const KMeansLayer& layer, int64_t m, float (&to)[D]) {
  const int d = layer.dim;
  const float* from = in_global(layer.data) + m * d;
  if (layer.aligned && d == D) {
    QN_UNROLL
    for (int t = 0; t < D; t += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + t);
      to[t] = four.x, to[t + 1] = four.y, to[t + 2] = four.z, to[t + 3] = four.w;
    }
    return;
  }
  QN_UNROLL
  for (int t = 0; t < D; ++t) to[t] = t < d ? from[t] : 0.0f;
}

/// Sub-vectors first + threadIdx.x, + kBlock, ...; from `last` on, that one instead.
template <int D>
__device__ __forceinline__ void load_candidates(const KMeansLayer& layer, int64_t first, int64_t last,
                                                Candidates<D>& mine) {
  QN_UNROLL
  for (int r = 0; r < mine.kVectors; ++r) {
    const int64_t at = first + r * kBlock + threadIdx.x, m = at < last ? at : last;
    load_vector(layer, m, mine.x[r]);
    mine.best[r] = mine.second[r] = FLT_MAX;
    mine.group[r] = 0;
    mine.code[r] = -1;
  }
}

/// Centroids of tile `number`. Returns the centroids per group that are not all beyond K.
template <int D>
__device__ void load_tile(const KMeansLayer& layer, int number, int depth, CentroidTile<D>& tile) {
  const int d = layer.dim, first = number * kTile;
  for (int i = static_cast<int>(threadIdx.x); i < depth * kGroups; i += kBlock) {
    const int k = first + i;
    const bool there = k < layer.n_centroids;
    tile.starts[i / kGroups][i % kGroups] = there ? in_global(layer.half_norm)[k] : FLT_MAX;
    for (int t = 0; t < D; ++t)
      tile.values[i / kGroups][t][i % kGroups] = there && t < d ? in_global(layer.centroids)[k * d + t] : 0.0f;
  }
}

/// Bound on the float32 error of a difference of two scores, from the sum of the terms below over all elements; see
/// Assigner::tolerance() in kmeans_assign.h.
__device__ __forceinline__ float tolerance(float bound, int dim) {
  const auto d = static_cast<float>(dim);
  return bound * (1.01f * (2.0f * (d + 4.0f) * (0.5f * FLT_EPSILON))) + 4.0f * d * FLT_MIN;
}
__device__ __forceinline__ float tolerance_term(float largest, float x) {
  return largest * (0.5f * largest + fabsf(x));
}

template <int D>
__device__ __forceinline__ float tolerance_of(const KMeansLayer& layer, const Candidates<D>& mine, int r) {
  float bound = 0.0f;
  QN_UNROLL
  for (int t = 0; t < D; ++t)
    if (t < layer.dim) bound += tolerance_term(in_global(layer.largest)[t], mine.x[r][t]);
  return tolerance(bound, layer.dim);
}

template <int D>
__device__ __forceinline__ void offer(Candidates<D>& mine, int r, float score, int group) {
  mine.second[r] = fminf(mine.second[r], fmaxf(mine.best[r], score));
  mine.group[r] = score < mine.best[r] ? group : mine.group[r];
  mine.best[r] = fminf(mine.best[r], score);
}

/// Offers the groups of a tile, two at a time: 2 * kVectors sums in flight.
template <int D>
__device__ __forceinline__ void find_groups(const CentroidTile<D>& tile, int number, int depth, Candidates<D>& mine) {
  constexpr int kR = Candidates<D>::kVectors;
  QN_KEEP_LOOP
  for (int g = 0; g < kGroups; g += 2) {
    float smallest[kR][2];
    QN_UNROLL
    for (int r = 0; r < kR; ++r) smallest[r][0] = smallest[r][1] = FLT_MAX;
    QN_KEEP_LOOP
    for (int q = 0; q < depth; ++q) {
      const float2 start = *reinterpret_cast<const float2*>(&tile.starts[q][g]);
      float score[kR][2];
      QN_UNROLL
      for (int r = 0; r < kR; ++r) score[r][0] = start.x, score[r][1] = start.y;
      QN_UNROLL
      for (int t = 0; t < D; ++t) {
        const float2 c = *reinterpret_cast<const float2*>(&tile.values[q][t][g]);
        QN_UNROLL
        for (int r = 0; r < kR; ++r) {
          score[r][0] = next_score(score[r][0], c.x, mine.x[r][t]);
          score[r][1] = next_score(score[r][1], c.y, mine.x[r][t]);
        }
      }
      QN_UNROLL
      for (int r = 0; r < kR; ++r) {
        smallest[r][0] = fminf(smallest[r][0], score[r][0]);
        smallest[r][1] = fminf(smallest[r][1], score[r][1]);
      }
    }
    QN_UNROLL
    for (int r = 0; r < kR; ++r) {
      offer(mine, r, smallest[r][0], number * kGroups + g);
      offer(mine, r, smallest[r][1], number * kGroups + g + 1);
    }
  }
}

/// Looks into the best group where it is in this tile: its nearest centroid, unless a second one is too close to tell.
template <int D>
__device__ __forceinline__ void find_codes(const KMeansLayer& layer, const CentroidTile<D>& tile, int number, int depth,
                                           Candidates<D>& mine) {
  QN_UNROLL
  for (int r = 0; r < mine.kVectors; ++r) {
    if (mine.group[r] / kGroups != number) continue;
    const int g = mine.group[r] % kGroups;
    const float limit = mine.best[r] + tolerance_of(layer, mine, r);
    int near = 0, code = -1;
    QN_KEEP_LOOP
    for (int q = 0; q < depth; ++q) {
      float score = tile.starts[q][g];
      QN_UNROLL
      for (int t = 0; t < D; ++t) score = next_score(score, tile.values[q][t][g], mine.x[r][t]);
      if (score > limit) continue;
      ++near;
      code = number * kTile + q * kGroups + g;
    }
    mine.code[r] = near == 1 ? code : -1;
  }
}

/// The code of number `at` within the batch, or its place in the list of those that double decides.
__device__ __forceinline__ void keep(BatchCodes& batch, int at, int code) {
  if (code < 0)
    batch.list[atomicAdd(&batch.doubtful, 1)] = static_cast<uint16_t>(at);
  else
    batch.code[at] = static_cast<uint16_t>(code);
}

/// Codes of sub-vectors first .. first + n - 1, or their numbers in the list. The whole block calls it.
template <int D>
__device__ void find_nearest(const KMeansLayer& layer, int64_t first, int n, CentroidTile<D>& tile, BatchCodes& batch) {
  using Mine = Candidates<D>;
  const int k = layer.n_centroids;
  const int tiles = (k + kTile - 1) / kTile;
  for (int base = 0; base < n; base += kBlock * Mine::kVectors) {
    Mine mine;
    load_candidates(layer, first + base, first + n - 1, mine);
    for (int number = 0; number < tiles; ++number) {
      const int left = k - number * kTile, depth = ((left < kTile ? left : kTile) + kGroups - 1) / kGroups;
      if (tiles > 1 || base == 0) {
        __syncthreads();
        load_tile<D>(layer, number, depth, tile);
        __syncthreads();
      }
      find_groups(tile, number, depth, mine);
      find_codes(layer, tile, number, depth, mine);
    }
    QN_UNROLL
    for (int r = 0; r < Mine::kVectors; ++r) {
      const int at = base + r * kBlock + static_cast<int>(threadIdx.x);
      if (at >= n) continue;
      keep(batch, at, mine.second[r] - mine.best[r] <= tolerance_of(layer, mine, r) ? -1 : mine.code[r]);
    }
  }
}

/// The same for sub-vectors of any size, one at a time and from where they lie.
__device__ inline void find_nearest_of_any_size(const KMeansLayer& layer, int64_t first, int n, BatchCodes& batch) {
  const int d = layer.dim;
  for (int at = static_cast<int>(threadIdx.x); at < n; at += kBlock) {
    const float* x = in_global(layer.data) + (first + at) * d;
    float best = FLT_MAX, second = FLT_MAX, bound = 0.0f;
    int code = 0;
    for (int k = 0; k < layer.n_centroids; ++k) {
      const float* c = in_global(layer.centroids) + k * d;
      float score = in_global(layer.half_norm)[k];
      for (int t = 0; t < d; ++t) score = next_score(score, c[t], x[t]);
      second = fminf(second, fmaxf(best, score));
      code = score < best ? k : code;
      best = fminf(best, score);
    }
    for (int t = 0; t < d; ++t) bound += tolerance_term(in_global(layer.largest)[t], x[t]);
    keep(batch, at, second - best <= tolerance(bound, d) ? -1 : code);
  }
}

/// nearest_centroid_exactly() by one warp; the same result in every lane.
__device__ inline int nearest_exactly(const KMeansLayer& layer, int64_t m) {
  const int d = layer.dim;
  const float* x = in_global(layer.data) + m * d;
  double best = HUGE_VAL;
  int nearest = 0x7fffffff;
  for (int k = static_cast<int>(threadIdx.x % 32); k < layer.n_centroids; k += 32) {
    const float* c = in_global(layer.centroids) + k * d;
    double distance = 0.0;
    for (int t = 0; t < d; ++t) {
      const double diff = static_cast<double>(x[t]) - static_cast<double>(c[t]);
      distance = fused(diff, diff, distance);
    }
    if (distance < best) {
      best = distance;
      nearest = k;
    }
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const double other = __shfl_xor_sync(0xffffffffU, best, offset);
    const int k = __shfl_xor_sync(0xffffffffU, nearest, offset);
    if (other < best || (other == best && k < nearest)) {
      best = other;
      nearest = k;
    }
  }
  return nearest;
}

__device__ inline void decide_doubtful(const KMeansLayer& layer, int64_t first, BatchCodes& batch) {
  for (int i = static_cast<int>(threadIdx.x) / 32; i < batch.doubtful; i += kBlock / 32) {
    const int at = batch.list[i], code = nearest_exactly(layer, first + at);
    if (threadIdx.x % 32 == 0) batch.code[at] = static_cast<uint16_t>(code);
  }
}

}  // namespace qn::cuda
