// Which groups of centroids can hold the nearest one, told by scores in 16-bit integers: an instruction of AVX512_VNNI
// adds twice as many of their products as one of floats. Included by kmeans_assign.h where the instruction set has it.
#include <cstdint>

#include "quant/kmeans_kernel.h"

namespace qn::QN_ISA {
namespace {

/// Groups that may hold the nearest centroid of one sub-vector, one bit each, and a bound on its score in float.
struct Candidates {
  uint32_t groups;
  float limit;
};

/// Scores are |c|^2/2 - x.c, as everywhere, in units of 1 / (scale of x * scale of c). `D` floats per sub-vector.
template <int D>
class GroupFilter {
 public:
  static_assert(D % 4 == 0);
  static constexpr int kPairs = D / 2, kColumns = 2, kBatch = kColumns * 16, kMostGroups = 32;

  /// Outside of this nothing is known to be gained, or scales would leave the range of float.
  static bool suits(const SubVectors& v, const CentroidTable& table) {
    return table.count() <= kMostGroups * 16 && v.max_abs > 1e-15 && v.max_abs < 1e15;
  }

  GroupFilter(const SubVectors& v, const CentroidTable& table) : groups_(static_cast<int>((table.count() + 15) / 16)) {
    float largest = 0.0f, reach = 0.0f;  // reach: sum over t of |c_t| (|c_t| / 2 + |x_t|) at most
    for (int t = 0; t < D; ++t) {
      const float c = table.largest()[t];
      largest = c > largest ? c : largest;
      reach += c * (0.5f * c + static_cast<float>(v.max_abs));
    }
    scale_x_ = kReach / static_cast<float>(v.max_abs);
    const float scale_c = largest > 1e-15f ? kReach / largest : scale_x_;
    const float units = scale_x_ * scale_c;
    unit_ = 1.0f / units;
    // Twice the error of a score: half a unit per rounded factor times the other factor, and what float32 adds.
    slack_ = static_cast<int32_t>(2e-6f * kMostScore) + 4 * D;
    for (int t = 0; t < D; ++t) slack_ += static_cast<int32_t>(table.largest()[t] * scale_c) + 1;
    rounding_ = reach * (2.02f * static_cast<float>(D + 4) * (0.5f * FLT_EPSILON)) + 4 * D * FLT_MIN;

    round(centroids_, table.values(), groups_ * 16 * D, -scale_c);
    for (int64_t k = 0; k < groups_ * 16; ++k)
      norms_[k] = k < table.count() ? static_cast<int32_t>(table.half_norm()[k] * units) : INT32_MAX;
  }

  /// Bound on the float32 error of a difference of two scores.
  float rounding() const { return rounding_; }

  /// Of sub-vectors x[0, D), x[D, 2 D), ...; the last of the `n` <= kBatch stands in for those that are not there.
  void select(const float* x, int n, Candidates* out) const {
    __m512i values[kColumns][kPairs];
    load(x, n, values);
    __m512i smallest[kMostGroups][kColumns], best[kColumns];
    for (__m512i& b : best) b = _mm512_set1_epi32(INT32_MAX);
    for (int g = 0; g < groups_; ++g) {
      for (__m512i& s : smallest[g]) s = _mm512_set1_epi32(INT32_MAX);
      for (int k = 0; k < 16; k += kTogether) smallest_scores(g * 16 + k, values, smallest[g]);
      for (int c = 0; c < kColumns; ++c) best[c] = _mm512_min_epi32(best[c], smallest[g][c]);
    }
    for (int c = 0; c < kColumns; ++c) {
      __m512i magnitude = _mm512_set1_epi32(slack_);
      for (const __m512i& v : values[c])
        magnitude = _mm512_dpwssd_epi32(magnitude, _mm512_abs_epi16(v), _mm512_set1_epi16(1));
      const __m512i limit = _mm512_add_epi32(best[c], magnitude);
      __m512i groups = _mm512_setzero_si512();
      for (int g = 0; g < groups_; ++g)
        groups = _mm512_mask_or_epi32(groups, _mm512_cmple_epi32_mask(smallest[g][c], limit), groups,
                                      _mm512_set1_epi32(static_cast<int32_t>(1U << g)));
      const __m512 score =
          _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(limit), _mm512_set1_ps(unit_)), _mm512_set1_ps(rounding_));
      const __m512i low = _mm512_unpacklo_epi32(groups, _mm512_castps_si512(score));
      const __m512i high = _mm512_unpackhi_epi32(groups, _mm512_castps_si512(score));
      const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                    last = _mm512_add_epi64(first, _mm512_set1_epi64(4));
      _mm512_storeu_si512(out + c * 16, _mm512_permutex2var_epi64(low, first, high));
      _mm512_storeu_si512(out + c * 16 + 8, _mm512_permutex2var_epi64(low, last, high));
    }
  }

 private:
  // |x| and |c| are at most kReach units, so |c|^2/2 - x.c is at most 1.5 D kReach^2 <= 2^30, and twice that fits.
  static constexpr int kReach = D == 4 ? 13377 : D == 8 ? 9458 : 0;
  static constexpr float kMostScore = 1.5f * D * kReach * kReach;
  static_assert(kReach > 0 && kMostScore <= 1073741824.0f);
  static constexpr int kTogether = 8;

  /// to[i] = from[i] * scale as an integer, for n of them, a multiple of 16.
  static void round(int16_t* to, const float* from, int n, float scale) {
    for (int i = 0; i < n; i += 16) {
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + i), _mm512_set1_ps(scale)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtepi32_epi16(rounded));
    }
  }

  /// values[column][pair]: elements 2 pair and 2 pair + 1 of 16 sub-vectors.
  void load(const float* x, int n, __m512i (&values)[kColumns][kPairs]) const {
    float padded[kBatch * D];
    if (n < kBatch) {
      for (int i = 0; i < kBatch; ++i) __builtin_memcpy(padded + i * D, x + (i < n ? i : n - 1) * D, D * sizeof(float));
      x = padded;
    }
    alignas(64) int16_t rows[kBatch * D];
    round(rows, x, kBatch * D, scale_x_);
    const __m512i row = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                           _mm512_set1_epi32(kPairs));
    for (int c = 0; c < kColumns; ++c)
      for (int p = 0; p < kPairs; ++p)
        values[c][p] = _mm512_i32gather_epi32(row, reinterpret_cast<const int32_t*>(rows + c * 16 * D) + p, 4);
  }

  void smallest_scores(int k, const __m512i (&values)[kColumns][kPairs], __m512i* smallest) const {
    __m512i score[kTogether][kColumns];
    for (int q = 0; q < kTogether; ++q)
      for (int c = 0; c < kColumns; ++c) score[q][c] = _mm512_set1_epi32(norms_[k + q]);
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p)
#pragma GCC unroll 8
      for (int q = 0; q < kTogether; ++q) {
        int32_t pair;
        __builtin_memcpy(&pair, &centroids_[(k + q) * D + 2 * p], sizeof pair);
        const __m512i factor = _mm512_set1_epi32(pair);
        for (int c = 0; c < kColumns; ++c) score[q][c] = _mm512_dpwssd_epi32(score[q][c], values[c][p], factor);
      }
    for (int width = kTogether / 2; width > 0; width /= 2)
      for (int q = 0; q < width; ++q)
        for (int c = 0; c < kColumns; ++c) score[q][c] = _mm512_min_epi32(score[q][c], score[q + width][c]);
    for (int c = 0; c < kColumns; ++c) smallest[c] = _mm512_min_epi32(smallest[c], score[0][c]);
  }

  int groups_;
  float scale_x_, unit_, rounding_;
  int32_t slack_ = 0;
  alignas(64) int16_t centroids_[kMostGroups * 16 * D];  // -c in units
  alignas(64) int32_t norms_[kMostGroups * 16];          // |c|^2 / 2 in units
};

}  // namespace
}  // namespace qn::QN_ISA
