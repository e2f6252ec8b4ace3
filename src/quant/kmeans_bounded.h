// An E-step that begins with bounds from the one before (kmeans_bounds.h): included by kmeans_assign.h for registers of
// at least 8 floats. Scores are |c|^2/2 - x.c, as everywhere, so the square of a distance is |x|^2 plus twice the
// score; u is the distance of a sub-vector to the centroid that it had.
//
// A piece of sub-vectors at a time, in loops that hardly ever branch: first the pairs of a sub-vector and a group that
// its bounds do not exclude are listed; then of each pair the smallest score of the group's centroids but the own one
// is found in 16-bit integers, a centroid a lane. It is the new bound, and mostly tells that the code stays. The few
// sub-vectors of which it does not are looked at in float, in double where float cannot tell.
#pragma once

#include <cfloat>
#include <cstdint>

#include "quant/kmeans_filter.h"
#include "quant/kmeans_kernel.h"
#include "quant/kmeans_lanes.h"

namespace qn::QN_ISA {
namespace {

/// at[mask]: the numbers of the bits of `mask`, lowest first.
struct BitNumbers {
  uint8_t at[256][8] = {};
  constexpr BitNumbers() {
    for (int mask = 0; mask < 256; ++mask)
      for (int bit = 0, found = 0; bit < 8; ++bit)
        if ((mask >> bit & 1) != 0) at[mask][found++] = static_cast<uint8_t>(bit);
  }
};
constexpr BitNumbers kBitNumbers;

/// Nothing but INT32_MIN around one INT32_MAX: the larger of this and scores hides one of them.
struct HidingOne {
  static constexpr int kMiddle = kMostBoundCentroids / kBoundGroups;
  int32_t values[2 * kMiddle] = {};
  constexpr HidingOne() {
    for (int32_t& v : values) v = INT32_MIN;
    values[kMiddle] = INT32_MAX;
  }
};
constexpr HidingOne kHidingOne;

/// Element i: the four elements of a lane of v[i] joined; the lower lanes of v[0, 4) come first, then the higher ones.
template <typename F>
inline __m256i join_lanes(const __m256i* v, const F& join) {
  const auto pairs = [&](__m256i a, __m256i b) {
    return join(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  };
  const __m256i first = pairs(v[0], v[1]), second = pairs(v[2], v[3]);
  return join(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
}

/// Element i: the eight elements of v[i] joined.
template <typename F>
inline __m256i join_all(const __m256i* v, const F& join) {
  const __m256i first = join_lanes(v, join), second = join_lanes(v + 4, join);
  return join(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
}

inline __m256i sums(__m256i a, __m256i b) {
  return _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

/// `D` floats per sub-vector.
template <int D>
class BoundedAssigner {
 public:
  explicit BoundedAssigner(const AssignTask& task)
      : v_(*task.vectors),
        table_(*task.table),
        step_(*task.bounds),
        transposed_(step_.grouped->transposed(kLanes)),
        per_unit_((1.0f - 8.0f * FLT_EPSILON) / step_.unit) {
    for (int g = 0; g < kBoundGroups; ++g) {
      // In 1/256 of a unit, rounded up.
      const auto slack = static_cast<int16_t>(static_cast<int>(step_.slack[g] * 256.0f) + 1);
      fall_[g] = fall_[8 + g] = fall_[16 + g] = fall_[24 + g] = step_.fall[g];
      slack_[g] = slack_[8 + g] = slack;
    }
  }

  /// `add(m, n, codes)` adds sub-vectors m .. m + n - 1 to the sums of their clusters.
  template <typename F>
  void run(AssignTask& task, const F& add) {
    for (int64_t m = task.begin; m < task.end; m += kPiece) {
      const int n = static_cast<int>(task.end - m < kPiece ? task.end - m : kPiece);
      uint16_t* codes = task.codes + (m - task.begin);
      uint8_t* bounds = step_.bytes + (m - step_.first) * kBoundGroups;
      ahead_x_ = v_.data + (m + n) * D;
      ahead_bounds_ = bounds + n * kBoundGroups;
      const int pairs = list_pairs(m, n, codes, bounds);
      const int close =
          step_.group_size == 32 ? renew_bounds<32>(pairs, codes, bounds) : renew_bounds<0>(pairs, codes, bounds);
      for (int p = 0; p < close;) {
        const int i = close_[p] / kBoundGroups;
        uint32_t groups = 0;
        for (; p < close && close_[p] / kBoundGroups == i; ++p) groups |= 1U << (close_[p] % kBoundGroups);
        codes[i] = settle(v_.data + (m + i) * D, codes[i], i, groups, bounds + i * kBoundGroups);
      }
      add(m, n, codes);
      task.looked_at += pairs;
    }
  }

 private:
  static constexpr int kPiece = 512, kPairs = D / 2;
  // A sum of squares has D + 2 roundings, a root one; squares may have vanished.
  static constexpr float kRounding = (D + 16) * FLT_EPSILON, kLost = 4.0f * D * FLT_MIN;

  /// A sub-vector in 16-bit integers, pair by pair.
  struct Pairs {
    LanesInt value[kPairs];
    explicit Pairs(const int16_t* row) {
      for (int p = 0; p < kPairs; ++p) {
        int32_t pair;
        __builtin_memcpy(&pair, row + 2 * p, sizeof pair);
        value[p] = splat_int(pair);
      }
    }
  };

  /// Lists in pairs_ what bounds do not exclude: sub-vector i of the piece and group g as 8 i + g. Their number.
  int list_pairs(int64_t m, int n, const uint16_t* codes, uint8_t* bounds) {
    int count = 0, i = 0;
    for (; i + 8 <= n; i += 8)
      count = list_eight(v_.data + (m + i) * D, codes + i, bounds + i * kBoundGroups, i, count);
    if (i == n) return count;
    // The last ones, in the company of zeros.
    float x[8 * D] = {};
    uint16_t some_codes[8] = {};
    uint8_t some_bounds[8 * kBoundGroups];
    const auto rest = static_cast<size_t>(n - i);
    __builtin_memset(some_bounds, 255, sizeof some_bounds);
    __builtin_memcpy(x, v_.data + (m + i) * D, rest * D * sizeof(float));
    __builtin_memcpy(some_codes, codes + i, rest * sizeof(uint16_t));
    __builtin_memcpy(some_bounds, bounds + i * kBoundGroups, rest * kBoundGroups);
    count = list_eight(x, some_codes, some_bounds, i, count);
    __builtin_memcpy(bounds + i * kBoundGroups, some_bounds, rest * kBoundGroups);
    while (count > 0 && pairs_[count - 1] >= n * kBoundGroups) --count;
    return count;
  }

  /// The same for sub-vectors i .. i + 7, which are x; takes off bounds what centroids have moved.
  int list_eight(const float* x, const uint16_t* codes, uint8_t* bounds, int i, int count) {
    const __m256 square =
        _mm256_fmadd_ps(squares<true>(x, codes), _mm256_set1_ps(1.0f + kRounding), _mm256_set1_ps(kLost));
    const __m256 length = _mm256_sqrt_ps(squares<false>(x, codes));
    const __m256 low = _mm256_fnmadd_ps(length, _mm256_set1_ps(step_.error_per_length * 2.001f),
                                        _mm256_set1_ps(-2.001f * step_.error - 2.0f * kLost));
    _mm256_storeu_ps(square_ + i, square);
    _mm256_storeu_ps(level_ + i,
                     _mm256_fmadd_ps(_mm256_mul_ps(length, length), _mm256_set1_ps(1.0f - 2.0f * kRounding), low));
    round_to_shorts(rows_ + i * D, x, 8 * D, step_.grid.scale_x);

    // u in 1/256 of a unit, rounded up, and as words of both lanes.
    const __m256 fine =
        _mm256_mul_ps(_mm256_sqrt_ps(square), _mm256_set1_ps(256.0f * (1.0f + 32.0f * FLT_EPSILON) * per_unit_));
    const __m256i whole =
        _mm256_cvttps_epi32(_mm256_add_ps(_mm256_min_ps(fine, _mm256_set1_ps(65534.0f)), _mm256_set1_ps(1.0f)));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(whole, whole), 0x88);
    for (int half = 0; half < 2; ++half) {
      uint32_t groups = reached(bounds + half * 4 * kBoundGroups, words, half);
      for (int j = 0; j < 4; ++j, groups >>= 8) count = append(half * 4 + i + j, groups & 255U, count);
    }
    return count;
  }

  /// Sums of squares of x, or of x less the centroids of `codes`, of eight sub-vectors.
  template <bool Differences>
  __m256 squares(const float* x, const uint16_t* codes) const {
    __m256i square[8];
    const float* c = table_.values();
    for (int j = 0; j < D; ++j) {
      __m256 value;
      if constexpr (D == 8) {
        value = _mm256_loadu_ps(x + j * D);
        if (Differences) value = _mm256_sub_ps(value, _mm256_loadu_ps(c + codes[j] * D));
      } else {
        value = _mm256_loadu2_m128(x + (j + 4) * D, x + j * D);
        if (Differences) value = _mm256_sub_ps(value, _mm256_loadu2_m128(c + codes[j + 4] * D, c + codes[j] * D));
      }
      square[j] = _mm256_castps_si256(_mm256_mul_ps(value, value));
    }
    return _mm256_castsi256_ps(D == 8 ? join_all(square, sums) : join_lanes(square, sums));
  }

  /// Groups that the bounds of four sub-vectors do not exclude, 8 bits each: excluded is byte > u + slack.
  uint32_t reached(uint8_t* bounds, __m256i words, int half) const {
    const auto at = reinterpret_cast<__m256i*>(bounds);
    const __m256i lower =
        _mm256_subs_epu8(_mm256_loadu_si256(at), _mm256_load_si256(reinterpret_cast<const __m256i*>(fall_)));
    _mm256_storeu_si256(at, lower);
    const __m256i zero = _mm256_setzero_si256(), slack = _mm256_load_si256(reinterpret_cast<const __m256i*>(slack_));
    // Words of sub-vectors 0 and 2, 1 and 3.
    const __m256i pick = _mm256_add_epi16(
        _mm256_setr_epi64x(0x0100010001000100, 0x0100010001000100, 0x0504050405040504, 0x0504050405040504),
        _mm256_set1_epi16(static_cast<int16_t>(half * 0x0808)));
    const __m256i even = _mm256_shuffle_epi8(words, pick),
                  odd = _mm256_shuffle_epi8(words, _mm256_add_epi16(pick, _mm256_set1_epi16(0x0202)));
    const __m256i beyond_even = _mm256_subs_epu16(_mm256_unpacklo_epi8(zero, lower), _mm256_adds_epu16(even, slack)),
                  beyond_odd = _mm256_subs_epu16(_mm256_unpackhi_epi8(zero, lower), _mm256_adds_epu16(odd, slack));
    return static_cast<uint32_t>(_mm256_movemask_epi8(
        _mm256_packs_epi16(_mm256_cmpeq_epi16(beyond_even, zero), _mm256_cmpeq_epi16(beyond_odd, zero))));
  }

  int append(int i, uint32_t groups, int count) {
    const __m128i numbers =
        _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitNumbers.at[groups])));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(pairs_ + count),
                     _mm_add_epi16(numbers, _mm_set1_epi16(static_cast<int16_t>(i * kBoundGroups))));
    return count + __builtin_popcount(groups);
  }

  /// Gives listed pairs new bounds, and lists in close_ those whose group may have a centroid as near as the own one.
  /// Their number. Groups have `Size` centroids (0: known at run time).
  template <uint32_t Size>
  int renew_bounds(int pairs, const uint16_t* codes, uint8_t* bounds) {
    const __m256 twice = _mm256_set1_ps(2.0f * step_.grid.unit);
    int close = 0;
    for (int p = pairs; p % 8 != 0; ++p) pairs_[p] = pairs_[pairs - 1];
    for (int from = 0; from < pairs; from += 8) {
      fetch_ahead();
      const uint16_t* pair = pairs_ + from;
      const bool all_of_one = from + 8 <= pairs && pair[0] % kBoundGroups == 0 && pair[7] - pair[0] == 7;
      __m256i scores[8];
      alignas(32) float square[8], level[8];
      if (all_of_one) {
        all_scores<Size>(pair[0] / kBoundGroups, step_.places[codes[pair[0] / kBoundGroups]], scores);
        _mm256_store_ps(square, _mm256_set1_ps(square_[pair[0] / kBoundGroups]));
        _mm256_store_ps(level, _mm256_set1_ps(level_[pair[0] / kBoundGroups]));
      } else {
        for (int j = 0; j < 8; ++j) {
          const int i = pair[j] / kBoundGroups;
          scores[j] = smallest_scores<Size, true>(Pairs(rows_ + i * D), pair[j] % kBoundGroups, step_.places[codes[i]]);
          square[j] = square_[i];
          level[j] = level_[i];
        }
      }
      const __m256i smallest = join_all(scores, [](__m256i a, __m256i b) { return _mm256_min_epi32(a, b); });
      const __m256 low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(smallest), twice, _mm256_load_ps(level));
      alignas(32) int32_t units[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(units), units_below(low));
      for (int j = 0; j < 8; ++j) bounds[pair[j]] = static_cast<uint8_t>(units[j]);
      auto near = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(low, _mm256_load_ps(square), _CMP_LE_OQ)));
      if (from + 8 > pairs) near &= (1U << (pairs - from)) - 1U;
      for (; near != 0; near &= near - 1) close_[close++] = pair[__builtin_ctz(near)];
    }
    return close;
  }

  /// Smallest scores of each group's centroids, but the own one, for sub-vector i: some in each lane.
  template <uint32_t Size>
  void all_scores(int i, uint32_t own_place, __m256i* scores) const {
    const Pairs x(rows_ + i * D);
    for (int g = 0; g < kBoundGroups; ++g) scores[g] = smallest_scores<Size, false>(x, g, own_place);
    const auto own_group = static_cast<int>(own_place / static_cast<uint32_t>(step_.group_size));
    scores[own_group] = smallest_scores<Size, true>(x, own_group, own_place);
  }

  /// Some more of the next piece into the cache: reading a piece in one go is faster than memory.
  void fetch_ahead() {
    for (int line = 0; line < D / 2; ++line, ahead_x_ += 16) _mm_prefetch(ahead_x_, _MM_HINT_T0);
    _mm_prefetch(ahead_bounds_, _MM_HINT_T0);
    ahead_bounds_ += 64;
  }

  /// Smallest scores of group g's centroids: some in each lane. `Hide` leaves out the one at own_place.
  template <uint32_t Size, bool Hide>
  __m256i smallest_scores(const Pairs& x, int g, uint32_t own_place) const {
    const uint32_t size = Size > 0 ? Size : static_cast<uint32_t>(step_.group_size);
    const uint32_t first = static_cast<uint32_t>(g) * size, own = own_place - first;
    const int32_t* hide = kHidingOne.values + HidingOne::kMiddle - (own < size ? own : size);
    const int16_t* c = step_.centroids + first * D;
    const int32_t* norms = step_.norms + first;
    LanesInt smallest = splat_int(INT32_MAX);
    for (uint32_t k = 0; k < size; k += kMaxLanes, c += kMaxLanes * D, norms += kMaxLanes, hide += kMaxLanes)
      for (int q = 0; q < kMaxLanes; q += kLanes) {
        LanesInt score;
        __builtin_memcpy(&score, norms + q, sizeof score);
        for (int p = 0; p < kPairs; ++p) {
          LanesInt factor;
          __builtin_memcpy(&factor, c + (p * kMaxLanes + q) * 2, sizeof factor);
          score = plus_products(score, x.value[p], factor);
        }
        if constexpr (Hide) {
          LanesInt hidden;
          __builtin_memcpy(&hidden, hide + q, sizeof hidden);
          score = larger_int(score, hidden);
        }
        smallest = smaller_int(smallest, score);
      }
    return smallest_of_eight(smallest);
  }

  /// Whole units that distances with squares of at least `low` have at least.
  __m256i units_below(__m256 low) const {
    const __m256 length = _mm256_sqrt_ps(_mm256_max_ps(low, _mm256_setzero_ps()));
    const __m256 units = _mm256_mul_ps(length, _mm256_set1_ps(per_unit_));
    return _mm256_cvttps_epi32(_mm256_min_ps(units, _mm256_set1_ps(255.0f)));
  }
  uint8_t units_below(float low) const {
    return static_cast<uint8_t>(_mm256_cvtsi256_si32(units_below(_mm256_set1_ps(low))));
  }

  /// The nearest centroid to a sub-vector: its place, or -1 where float cannot tell, and the smallest score of the
  /// others in its group.
  struct Nearest {
    int64_t place;
    float next;
  };

  /// The code of sub-vector i, x, which was `old_code` unless `groups` have a nearer one, and the bounds that follow.
  uint16_t settle(const float* x, uint16_t old_code, int i, uint32_t groups, uint8_t* bounds) {
    const int64_t old_place = step_.places[old_code];
    const Nearest found = nearest(x, old_place, groups);
    if (found.place == old_place) return old_code;
    const auto code =
        static_cast<uint16_t>(found.place < 0 ? nearest_centroid_exactly(x, table_) : step_.numbers[found.place]);
    if (code == old_code) return code;
    // Errors of scores in float are smaller than those that level_ has room for.
    bounds[step_.places[code] / step_.group_size] =
        found.place < 0 ? uint8_t{0} : units_below(2.0f * found.next + level_[i]);
    // The old centroid is one of the others now.
    uint8_t& old_bound = bounds[old_place / step_.group_size];
    const uint8_t old_distance = units_below(square_[i] * (1.0f - 2.0f * kRounding) - 2.0f * kLost);
    old_bound = old_bound < old_distance ? old_bound : old_distance;
    return code;
  }

  /// Among the centroid at `place` and those of some groups.
  Nearest nearest(const float* x, int64_t place, uint32_t groups) const {
    const bool apart = (groups >> (place / step_.group_size) & 1U) == 0;
    const float own = apart ? float_score(place, x) : FLT_MAX;
    Lanes scores[kMostBoundCentroids / kLanes], smallest = splat(own);
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1)
      for (int64_t r = first_register(__builtin_ctz(rest)); r < first_register(__builtin_ctz(rest) + 1); ++r) {
        scores[r] = float_scores(r, x);
        smallest = smaller(smallest, scores[r]);
      }
    const float most = smallest_lane(smallest) + step_.grid.rounding;
    const Lanes limit = splat(most);
    int64_t found = own <= most ? place : -1;
    for (uint32_t rest = groups; rest != 0; rest &= rest - 1)
      for (int64_t r = first_register(__builtin_ctz(rest)); r < first_register(__builtin_ctz(rest) + 1); ++r) {
        const uint32_t near = at_most(scores[r], limit);
        if (near == 0) continue;
        if (found >= 0 || (near & (near - 1)) != 0) return {-1, 0.0f};
        found = r * kLanes + __builtin_ctz(near);
      }
    if (found == place) return {place, 0.0f};
    Lanes next = splat(FLT_MAX);
    const auto group = static_cast<int>(found / step_.group_size);
    for (int64_t r = first_register(group); r < first_register(group + 1); ++r)
      next = smaller(next, scores[r] <= limit ? splat(FLT_MAX) : scores[r]);
    return {found, smallest_lane(next)};
  }

  /// Score of the centroid at a place.
  float float_score(int64_t place, const float* x) const {
    float score = step_.grouped->half_norm()[place];
    const float* c = step_.grouped->values() + place * D;
    for (int t = 0; t < D; ++t) score -= x[t] * c[t];
    return score;
  }

  int64_t first_register(int g) const {
    const int64_t first = g * (step_.group_size / kLanes), all = (step_.grouped->count() + kLanes - 1) / kLanes;
    return first < all ? first : all;
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

  const SubVectors& v_;
  const CentroidTable& table_;
  const BoundStep& step_;
  const float* const transposed_;
  const float per_unit_;  ///< a little less
  alignas(32) uint8_t fall_[32];
  alignas(32) int16_t slack_[16];
  const float* ahead_x_ = nullptr;
  const uint8_t* ahead_bounds_ = nullptr;
  float square_[kPiece];  ///< at least u^2
  float level_[kPiece];   ///< at most |x|^2, and less the errors of scores
  uint16_t pairs_[kPiece * kBoundGroups + 8], close_[kPiece * kBoundGroups];
  alignas(64) int16_t rows_[kPiece * D];
};

}  // namespace
}  // namespace qn::QN_ISA
