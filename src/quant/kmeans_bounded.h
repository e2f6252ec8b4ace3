// An E-step that begins with bounds from the one before (kmeans_bounds.h): included by kmeans_assign.h for registers of
// 8 floats. (With registers of 16 looking at all centroids is as fast.) Scores are |c|^2/2 - x.c, as everywhere; u is
// the distance of a sub-vector to the centroid that it had.
//
// A piece of sub-vectors at a time: those whose bounds exclude all groups keep their codes. For the others, group by
// group, the two smallest scores in 16-bit integers (kmeans_filter.h) of each group that is not excluded are found for
// a batch of sub-vectors. Mostly they tell that the code stays and by how much, which is the new bound; else the groups
// that may hold the nearest centroid are looked at in float, and double where float cannot tell.
#pragma once

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_filter.h"
#include "quant/kmeans_kernel.h"
#include "quant/kmeans_lanes.h"

namespace qn::QN_ISA {
namespace {

/// `D` floats per sub-vector.
template <int D>
class BoundedAssigner {
 public:
  explicit BoundedAssigner(const AssignTask& task)
      : v_(*task.vectors),
        table_(*task.table),
        step_(*task.bounds),
        scores_(*task.vectors, *task.bounds->grouped),
        transposed_(step_.grouped->transposed(kLanes)),
        fall_(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(step_.fall))),
        slack_(_mm256_loadu_ps(step_.slack)) {}

  /// `add(m, n, codes)` adds sub-vectors m .. m + n - 1 to the sums of their clusters.
  template <typename F>
  void run(AssignTask& task, const F& add) {
    for (int64_t m = task.begin; m < task.end; m += kPiece) {
      const int n = static_cast<int>(task.end - m < kPiece ? task.end - m : kPiece);
      uint16_t* codes = task.codes + (m - task.begin);
      const int unsure = find_unsure(m, n, codes);
      for (int g = 0; g < kBoundGroups; ++g) task.looked_at += score_group(g, unsure);
      for (int i = 0; i < unsure; ++i) {
        const int64_t at = m + unsure_[i].number;
        uint16_t& code = codes[unsure_[i].number];
        code = settle(v_.data + at * D, code, i, bytes(at));
      }
      add(m, n, codes);
    }
  }

 private:
  using Scores = IntScores<D, kMostBoundCentroids, 1>;
  static constexpr int kPiece = 512, kBatch = Scores::kBatch;

  /// A sub-vector of a piece whose bounds do not exclude `groups`, and the square of u.
  struct Unsure {
    int number;
    uint32_t groups;
    float square;
  };
  /// Eight integers, one per group.
  typedef int32_t Eight __attribute__((vector_size(32)));

  uint8_t* bytes(int64_t m) const { return step_.bytes + (m - step_.first) * kBoundGroups; }

  /// D floats, and zeros.
  static __m256 floats(const float* x) { return D == 8 ? _mm256_loadu_ps(x) : _mm256_zextps128_ps256(_mm_loadu_ps(x)); }
  static float sum(__m256 v) {
    __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    w = _mm_add_ps(w, _mm_movehl_ps(w, w));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_movehdup_ps(w)));
  }
  static int32_t sum(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
  }
  static __m128i shorts(const int16_t* x) {
    const auto* from = reinterpret_cast<const __m128i*>(x);
    return D == 8 ? _mm_loadu_si128(from) : _mm_loadl_epi64(from);
  }

  /// Lists the sub-vectors of a piece whose bounds do not tell that they keep their codes.
  int find_unsure(int64_t m, int n, const uint16_t* codes) {
    // The sum of squares has D + 2 roundings, the root one; squares may have vanished.
    constexpr float kUp = 1.0f + (D + 16) * FLT_EPSILON, kLost = 4.0f * D * FLT_MIN;
    const __m256 per_unit = _mm256_set1_ps((1.0f + 4.0f * FLT_EPSILON) / step_.unit);
    uint8_t* bound = bytes(m);
    int found = 0;
    for (int i = 0; i < n; ++i, bound += kBoundGroups) {
      const float* x = v_.data + (m + i) * D;
      const __m256 value = floats(x), diff = _mm256_sub_ps(value, floats(table_.values() + codes[i] * D));
      const float square = sum(_mm256_mul_ps(diff, diff));
      const __m128 longest = _mm_sqrt_ss(_mm_set_ss(square * kUp + kLost));
      const __m128i lower = _mm_subs_epu8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bound)), fall_);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(bound), lower);
      // Excluded: byte - slack > u in units. Where it matters both sides are below 2^9, so that their float arithmetic
      // is wrong by less than 2^-14; bytes are too low by 2^-10 at least.
      const __m256 units = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(lower)), slack_);
      const __m256 reached = _mm256_mul_ps(_mm256_broadcastss_ps(longest), per_unit);
      const auto groups = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(units, reached, _CMP_LE_OQ)));
      unsure_[found] = {i, groups, square};
      __builtin_memcpy(values_ + found * D, x, D * sizeof(float));
      found += groups != 0 ? 1 : 0;
    }
    const int padded = (found * D + 15) / 16 * 16;
    for (int i = found * D; i < padded; ++i) values_[i] = 0.0f;
    scores_.round_vectors(rows_, values_, padded);
    return found;
  }

  int64_t first_register(int g) const {
    const int64_t first = g * (step_.group_size / kLanes);
    return first < scores_.registers() ? first : scores_.registers();
  }

  /// Finds smallest_ and second_ of group g for those that need them; their number.
  int64_t score_group(int g, int unsure) {
    int count = 0;
    for (int i = 0; i < unsure; ++i) {
      list_[count] = i;
      count += static_cast<int>((unsure_[i].groups >> g) & 1U);
    }
    if (count == 0) return 0;
    for (int i = count; i % kBatch != 0; ++i) list_[i] = list_[count - 1];
    for (int from = 0; from < count; from += kBatch) {
      typename Scores::Values values;
      Scores::take(rows_, list_ + from, values);
      LanesInt smallest = splat_int(INT32_MAX), second = smallest;
      for (int64_t k = first_register(g) * kLanes; k < first_register(g + 1) * kLanes; k += Scores::kTogether)
        offer_scores(k, values, smallest, second);
      for (int i = 0; i < kBatch; ++i) {
        smallest_[list_[from + i]][g] = smallest[i];
        second_[list_[from + i]][g] = second[i];
      }
    }
    return count;
  }

  void offer_scores(int64_t k, const typename Scores::Values& values, LanesInt& smallest, LanesInt& second) const {
    LanesInt score[Scores::kTogether][1];
    scores_.scores(k, values, score);
    for (int q = 0; q < Scores::kTogether; q += 2) {
      const LanesInt low = smaller_int(score[q][0], score[q + 1][0]), high = larger_int(score[q][0], score[q + 1][0]);
      second = smaller_int(smaller_int(second, high), larger_int(smallest, low));
      smallest = smaller_int(smallest, low);
    }
  }

  static Eight eight(int32_t value) { return Eight{} + value; }
  static uint32_t bits(Eight mask) { return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask))); }

  /// Score in integers of the centroid at a place.
  int32_t score_of(int64_t place, __m128i row) const {
    return sum(_mm_madd_epi16(row, shorts(scores_.centroid(place)))) + scores_.norm(place);
  }

  /// Of each group the smallest score of the centroids but that at `place`, which has the score `own`; the highest
  /// number in groups that were not looked at. Integers: the same score is found again in the smallest two if it is one
  /// of them.
  Eight smallest_of_others(int i, int64_t place, int32_t own) const {
    const Eight numbers = {0, 1, 2, 3, 4, 5, 6, 7}, bit = {1, 2, 4, 8, 16, 32, 64, 128};
    Eight smallest, second;
    __builtin_memcpy(&smallest, smallest_[i], sizeof smallest);
    __builtin_memcpy(&second, second_[i], sizeof second);
    const Eight mine = (numbers == eight(static_cast<int32_t>(place / step_.group_size))) & (smallest >= eight(own));
    const Eight others = mine ? second : smallest;
    return (eight(static_cast<int32_t>(unsure_[i].groups)) & bit) != 0 ? others : eight(INT32_MAX);
  }

  /// The code of unsure sub-vector i, x, which was `old_code`, and new bounds for the groups that were not excluded.
  uint16_t settle(const float* x, uint16_t old_code, int i, uint8_t* bound) const {
    const __m128i row = shorts(rows_ + i * D), ones = _mm_set1_epi16(1);
    const int64_t old_place = step_.places[old_code];
    const int32_t own = score_of(old_place, row),
                  slack = scores_.slack() + sum(_mm_madd_epi16(_mm_abs_epi16(row), ones));
    const Eight others = smallest_of_others(i, old_place, own);
    // All that could be nearer than the old centroid, or as near.
    const uint32_t close = bits(others <= eight(own + slack));
    if (close == 0) {
      renew(bound, unsure_[i], others, own, slack);
      return old_code;
    }
    const uint16_t code = nearest(x, old_place, close);
    const int64_t place = step_.places[code];
    Eight now = smallest_of_others(i, place, score_of(place, row));
    if (code != old_code) now[old_place / step_.group_size] = smaller_of(now[old_place / step_.group_size], own);
    renew(bound, unsure_[i], now, own, slack);
    return code;
  }

  static int32_t smaller_of(int32_t a, int32_t b) { return a < b ? a : b; }

  /// The nearest centroid to x: the one at `place` or one of some groups.
  uint16_t nearest(const float* x, int64_t place, uint32_t groups) const {
    groups |= 1U << (place / step_.group_size);
    Lanes smallest = splat(FLT_MAX);
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1)
      for (int64_t r = first_register(__builtin_ctz(rest)); r < first_register(__builtin_ctz(rest) + 1); ++r)
        smallest = smaller(smallest, float_scores(r, x));
    float best = FLT_MAX;
    for (int lane = 0; lane < kLanes; ++lane) best = smallest[lane] < best ? smallest[lane] : best;
    int64_t found = -1;
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1)
      for (int64_t r = first_register(__builtin_ctz(rest)); r < first_register(__builtin_ctz(rest) + 1); ++r) {
        const uint32_t near = at_most(float_scores(r, x), splat(best + scores_.rounding()));
        if (near == 0) continue;
        if (found >= 0 || (near & (near - 1)) != 0) return static_cast<uint16_t>(nearest_centroid_exactly(x, table_));
        found = r * kLanes + __builtin_ctz(near);
      }
    return step_.numbers[found];
  }

  /// Scores of one register of centroids.
  Lanes float_scores(int64_t r, const float* x) const {
    Lanes score;
    __builtin_memcpy(&score, step_.grouped->half_norm() + r * kLanes, sizeof score);
    for (int t = 0; t < D; ++t) {
      Lanes c;
      __builtin_memcpy(&c, transposed_ + (r * D + t) * kLanes, sizeof c);
      score = minus_product(score, c, splat(x[t]));
    }
    return score;
  }

  /// New bounds from the smallest score of each group: a distance is the root of u^2 + 2 (score - own score). Groups
  /// that were not looked at keep theirs where it is lower. Scores become floats with errors of at most 2^7 units each,
  /// which `slack` has room for: it adds 2147 for what float32 does to scores, which is less than 1000.
  void renew(uint8_t* bound, const Unsure& unsure, Eight smallest, int32_t own, int32_t slack) const {
    const __m256 zero = _mm256_setzero_ps(), square = _mm256_set1_ps(unsure.square);
    const __m256 scores = _mm256_cvtepi32_ps(reinterpret_cast<__m256i>(smallest));
    const __m256 delta = _mm256_sub_ps(scores, _mm256_set1_ps(static_cast<float>(own)));
    const __m256 twice = _mm256_mul_ps(delta, _mm256_set1_ps(2.0f * scores_.unit()));
    const __m256 magnitude = _mm256_add_ps(square, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), twice));
    const float constant = 2.0f * scores_.unit() * static_cast<float>(slack) + 4.0f * D * FLT_MIN;
    const __m256 rounding =
        _mm256_fmadd_ps(magnitude, _mm256_set1_ps((D + 32) * FLT_EPSILON), _mm256_set1_ps(constant));
    const __m256 low = _mm256_sub_ps(_mm256_add_ps(square, twice), rounding);
    const __m256 length = _mm256_sqrt_ps(_mm256_max_ps(low, zero));
    const __m256 per_unit = _mm256_set1_ps((1.0f - 8.0f * FLT_EPSILON) / step_.unit);
    const __m256 units =
        _mm256_sub_ps(_mm256_min_ps(_mm256_mul_ps(length, per_unit), _mm256_set1_ps(255.5f)), _mm256_set1_ps(0x1p-10f));
    const __m256i whole = _mm256_cvttps_epi32(_mm256_max_ps(units, zero));
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const __m128i bit = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i looked_at = _mm_cmpeq_epi8(_mm_and_si128(_mm_set1_epi8(static_cast<char>(unsure.groups)), bit), bit);
    const auto at = reinterpret_cast<__m128i*>(bound);
    const __m128i kept = _mm_or_si128(_mm_loadl_epi64(at), looked_at);
    _mm_storel_epi64(at, _mm_min_epu8(kept, _mm_packus_epi16(halves, halves)));
  }

  const SubVectors& v_;
  const CentroidTable& table_;
  const BoundStep& step_;
  const Scores scores_;
  const float* const transposed_;
  const __m128i fall_;
  const __m256 slack_;
  Unsure unsure_[kPiece];
  int32_t list_[kPiece + kBatch];
  alignas(64) float values_[kPiece * D];
  alignas(64) int16_t rows_[kPiece * D];
  alignas(64) int32_t smallest_[kPiece][kBoundGroups], second_[kPiece][kBoundGroups];
};

}  // namespace
}  // namespace qn::QN_ISA
