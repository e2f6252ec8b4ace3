// Scores in 16-bit integers, which tell which groups of centroids can hold the nearest one: an instruction multiplies
// twice as many of them as floats and adds the products in pairs (AVX512_VNNI adds the sum so far, too). Included by
// kmeans_assign.h for registers of at least 8 floats.
#pragma once

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_kernel.h"
#include "quant/kmeans_lanes.h"

namespace qn::QN_ISA {
namespace {

/// to[i] = from[i] * scale as an integer, for n of them, a multiple of 16.
inline void round_to_shorts(int16_t* to, const float* from, int n, float scale) {
  for (int i = 0; i < n; i += 16) {
#if QN_LANES == 16
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + i), _mm512_set1_ps(scale)));
    const __m256i halves = _mm512_cvtepi32_epi16(rounded);
#else
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i), factor)),
                  high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + i + 8), factor));
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
#endif
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), halves);
  }
}

/// Scores are |c|^2/2 - x.c, as everywhere, here of 16-bit integers (ScoreGrid). `D` floats per sub-vector, at most
/// `MostCentroids` centroids.
template <int D, int MostCentroids>
class IntScores {
 public:
  static_assert(D == 4 || D == 8);
  static constexpr int kPairs = D / 2, kColumns = 2, kBatch = kColumns * kLanes;
  /// Centroids whose scores exist at a time: as many as there are registers for.
  static constexpr int kTogether = kLanes == 16 ? 8 : 4 / kColumns;
  /// values[column][pair]: elements 2 pair and 2 pair + 1 of kLanes sub-vectors.
  using Values = LanesInt[kColumns][kPairs];

  /// Outside of this nothing is known to be gained, or scales would leave the range of float.
  static bool suits(const SubVectors& v, const CentroidTable& table) {
    return table.count() <= MostCentroids && has_score_grid(v);
  }

  IntScores(const SubVectors& v, const CentroidTable& table)
      : registers_((table.count() + kLanes - 1) / kLanes), grid_(make_score_grid(v, table)) {
    // Twice the error of a score: half a unit per rounded factor times the other factor, and what float32 adds.
    slack_ = static_cast<int32_t>(2e-6f * grid_.most_score(D)) + 4 * D;
    for (int t = 0; t < D; ++t) slack_ += static_cast<int32_t>(table.largest()[t] * grid_.scale_c) + 1;

    round_to_shorts(centroids_, table.values(), static_cast<int>(registers_) * kLanes * D, -grid_.scale_c);
    for (int64_t k = 0; k < registers_ * kLanes; ++k)
      norms_[k] = k < table.count() ? static_cast<int32_t>(table.half_norm()[k] / grid_.unit) : INT32_MAX;
  }

  int64_t registers() const { return registers_; }
  /// One unit of a score in float.
  float unit() const { return grid_.unit; }
  /// Bound on the float32 error of a difference of two float scores.
  float rounding() const { return grid_.rounding; }
  /// Bound on the error of a difference of two scores, less the sum of |x| in units of x.
  int32_t slack() const { return slack_; }

  /// Sub-vectors as integers: n floats, a multiple of 16.
  void round_vectors(int16_t* to, const float* from, int n) const { round_to_shorts(to, from, n, grid_.scale_x); }

  static void take(const int16_t* rows, Values& values) {
    for (int c = 0; c < kColumns; ++c) take_pairs(rows + c * kLanes * D, values[c]);
  }

  /// Scores of centroids k .. k + kTogether - 1.
  void scores(int64_t k, const Values& values, LanesInt (&score)[kTogether][kColumns]) const {
    for (int q = 0; q < kTogether; ++q)
      for (int c = 0; c < kColumns; ++c) score[q][c] = splat_int(norms_[k + q]);
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p)
#pragma GCC unroll 8
      for (int q = 0; q < kTogether; ++q) {
        int32_t pair;
        __builtin_memcpy(&pair, &centroids_[(k + q) * D + 2 * p], sizeof pair);
        const LanesInt factor = splat_int(pair);
        for (int c = 0; c < kColumns; ++c) score[q][c] = plus_products(score[q][c], values[c][p], factor);
      }
  }

 private:
#if QN_LANES == 16
  static void take_pairs(const int16_t* rows, LanesInt (&pairs)[kPairs]) {
    const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i row = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(kPairs));
    for (int p = 0; p < kPairs; ++p)
      pairs[p] = reinterpret_cast<LanesInt>(_mm512_i32gather_epi32(row, reinterpret_cast<const int32_t*>(rows) + p, 4));
  }
#else
  /// 8 rows of kPairs 32-bit numbers become kPairs rows of 8.
  static void take_pairs(const int16_t* rows, LanesInt (&pairs)[kPairs]) {
    if constexpr (D == 8) {
      __m256i r[4], halves[4];  // r[i]: sub-vectors i and i + 4
      for (int i = 0; i < 4; ++i)
        r[i] = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(rows + (i + 4) * D),
                                   reinterpret_cast<const __m128i*>(rows + i * D));
      for (int i = 0; i < 2; ++i) {
        halves[i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        halves[2 + i] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
      }
      for (int i = 0; i < 2; ++i) {
        pairs[2 * i] = reinterpret_cast<LanesInt>(_mm256_unpacklo_epi64(halves[2 * i], halves[2 * i + 1]));
        pairs[2 * i + 1] = reinterpret_cast<LanesInt>(_mm256_unpackhi_epi64(halves[2 * i], halves[2 * i + 1]));
      }
    } else {
      int64_t r[8];
      for (int i = 0; i < 8; ++i) __builtin_memcpy(&r[i], rows + i * D, sizeof r[i]);
      const __m256 first = _mm256_castsi256_ps(_mm256_setr_epi64x(r[0], r[1], r[4], r[5])),
                   last = _mm256_castsi256_ps(_mm256_setr_epi64x(r[2], r[3], r[6], r[7]));
      pairs[0] = reinterpret_cast<LanesInt>(_mm256_shuffle_ps(first, last, 0x88));
      pairs[1] = reinterpret_cast<LanesInt>(_mm256_shuffle_ps(first, last, 0xdd));
    }
  }
#endif

  const int64_t registers_;
  const ScoreGrid grid_;
  int32_t slack_ = 0;
  alignas(64) int16_t centroids_[MostCentroids * D];
  alignas(64) int32_t norms_[MostCentroids];
};

constexpr int kMostFilterGroups = 32;

/// Which registers of centroids ("groups") can hold the nearest one.
template <int D>
class GroupFilter : public IntScores<D, kMostFilterGroups * kLanes> {
 public:
  using Base = IntScores<D, kMostFilterGroups * kLanes>;
  using Base::Base, Base::kColumns, Base::kBatch, Base::kTogether;

  /// For each sub-vector of a batch: the groups that may hold its nearest centroid, one bit each, and a bound on that
  /// centroid's score in float.
  struct Candidates {
    uint32_t groups[kBatch];
    float limit[kBatch];
  };

  /// Of sub-vectors x[0, D), x[D, 2 D), ..., `n` <= kBatch of them.
  void select(const float* x, int n, Candidates& out) const {
    typename Base::Values values;
    load(x, n, values);
    const int groups = static_cast<int>(this->registers());
    LanesInt smallest[kMostFilterGroups][kColumns], best[kColumns];
    for (LanesInt& b : best) b = splat_int(INT32_MAX);
    for (int g = 0; g < groups; ++g) {
      for (LanesInt& s : smallest[g]) s = splat_int(INT32_MAX);
      for (int k = 0; k < kLanes; k += kTogether) offer_scores(g * kLanes + k, values, smallest[g]);
      for (int c = 0; c < kColumns; ++c) best[c] = smaller_int(best[c], smallest[g][c]);
    }
    for (int c = 0; c < kColumns; ++c) {
      LanesInt limit = best[c] + this->slack();
      for (const LanesInt& v : values[c]) limit = plus_products(limit, magnitudes(v), splat_int(0x00010001));
      LanesInt found{};
      for (int g = 0; g < groups; ++g)
        found = mark_at_most(found, smallest[g][c], limit, static_cast<int32_t>(1U << g));
      const Lanes score = to_float(limit) * this->unit() + this->rounding();
      __builtin_memcpy(out.groups + c * kLanes, &found, sizeof found);
      __builtin_memcpy(out.limit + c * kLanes, &score, sizeof score);
    }
  }

 private:
  void load(const float* x, int n, typename Base::Values& values) const {
    alignas(64) int16_t rows[kBatch * D];
    if (n == kBatch) {
      this->round_vectors(rows, x, kBatch * D);
    } else {
      float padded[kBatch * D] = {};
      __builtin_memcpy(padded, x, static_cast<size_t>(n * D) * sizeof(float));
      this->round_vectors(rows, padded, kBatch * D);
    }
    Base::take(rows, values);
  }

  void offer_scores(int64_t k, const typename Base::Values& values, LanesInt* smallest) const {
    LanesInt score[kTogether][kColumns];
    this->scores(k, values, score);
    for (int width = kTogether / 2; width > 0; width /= 2)
      for (int q = 0; q < width; ++q)
        for (int c = 0; c < kColumns; ++c) score[q][c] = smaller_int(score[q][c], score[q + width][c]);
    for (int c = 0; c < kColumns; ++c) smallest[c] = smaller_int(smallest[c], score[0][c]);
  }
};

}  // namespace
}  // namespace qn::QN_ISA
