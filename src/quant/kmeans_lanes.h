// One register of floats, and what of it the language cannot say: included by kmeans_assign.h, once per instruction
// set.
#pragma once

#include <cstdint>

namespace qn::QN_ISA {
namespace {

constexpr int kLanes = QN_LANES;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t LanesInt __attribute__((vector_size(kLanes * sizeof(int32_t))));

typedef double Four __attribute__((vector_size(4 * sizeof(double))));

/// `value` in every lane. (Adding to zero instead would cost an addition: it turns -0 into 0.)
inline Lanes splat(float value) { return value - Lanes{}; }

#if QN_LANES >= 8
/// x[0], ..., x[3]
inline Four widen(const float* x) { return reinterpret_cast<Four>(_mm256_cvtps_pd(_mm_loadu_ps(x))); }
#else
inline Four widen(const float* x) {
  return Four{static_cast<double>(x[0]), static_cast<double>(x[1]), static_cast<double>(x[2]),
              static_cast<double>(x[3])};
}
#endif

#if QN_LANES == 16
inline Lanes smaller(Lanes a, Lanes b) { return reinterpret_cast<Lanes>(_mm512_min_ps(a, b)); }
/// sum - a * b with one rounding
inline Lanes minus_product(Lanes sum, Lanes a, Lanes b) { return reinterpret_cast<Lanes>(_mm512_fnmadd_ps(a, b, sum)); }
/// Bit i: v[i] <= limit
inline uint32_t at_most(Lanes v, Lanes limit) { return _mm512_cmp_ps_mask(v, limit, _CMP_LE_OQ); }
#elif QN_LANES == 8
inline Lanes smaller(Lanes a, Lanes b) { return reinterpret_cast<Lanes>(_mm256_min_ps(a, b)); }
inline Lanes minus_product(Lanes sum, Lanes a, Lanes b) { return reinterpret_cast<Lanes>(_mm256_fnmadd_ps(a, b, sum)); }
inline uint32_t at_most(Lanes v, Lanes limit) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, limit, _CMP_LE_OQ)));
}
#else
inline Lanes smaller(Lanes a, Lanes b) { return a < b ? a : b; }
inline Lanes minus_product(Lanes sum, Lanes a, Lanes b) { return sum - a * b; }
inline uint32_t at_most(Lanes v, Lanes limit) {
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= static_cast<uint32_t>(v[lane] <= limit[lane]) << lane;
  return bits;
}
#endif

#if QN_LANES >= 8
inline LanesInt splat_int(int32_t value) { return LanesInt{} + value; }
#endif
#if QN_LANES == 16
inline LanesInt smaller_int(LanesInt a, LanesInt b) {
  return reinterpret_cast<LanesInt>(_mm512_min_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
inline LanesInt larger_int(LanesInt a, LanesInt b) {
  return reinterpret_cast<LanesInt>(_mm512_max_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
/// Smallest ones of a register in eight lanes.
inline __m256i smallest_of_eight(LanesInt v) {
  const auto all = reinterpret_cast<__m512i>(v);
  return _mm256_min_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
}
/// sum + the products of a lane's two 16-bit integers in a and in b
inline LanesInt plus_products(LanesInt sum, LanesInt a, LanesInt b) {
  const auto x = reinterpret_cast<__m512i>(a), y = reinterpret_cast<__m512i>(b);
#ifdef QN_VNNI
  return reinterpret_cast<LanesInt>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), x, y));
#else
  return sum + reinterpret_cast<LanesInt>(_mm512_madd_epi16(x, y));
#endif
}
inline LanesInt magnitudes(LanesInt shorts) {
  return reinterpret_cast<LanesInt>(_mm512_abs_epi16(reinterpret_cast<__m512i>(shorts)));
}
/// bits | bit where value <= limit
inline LanesInt mark_at_most(LanesInt bits, LanesInt value, LanesInt limit, int32_t bit) {
  const __mmask16 where = _mm512_cmple_epi32_mask(reinterpret_cast<__m512i>(value), reinterpret_cast<__m512i>(limit));
  const auto old = reinterpret_cast<__m512i>(bits);
  return reinterpret_cast<LanesInt>(_mm512_mask_or_epi32(old, where, old, _mm512_set1_epi32(bit)));
}
inline Lanes to_float(LanesInt v) { return reinterpret_cast<Lanes>(_mm512_cvtepi32_ps(reinterpret_cast<__m512i>(v))); }
#elif QN_LANES == 8
inline LanesInt smaller_int(LanesInt a, LanesInt b) {
  return reinterpret_cast<LanesInt>(_mm256_min_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
inline LanesInt larger_int(LanesInt a, LanesInt b) {
  return reinterpret_cast<LanesInt>(_mm256_max_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
inline __m256i smallest_of_eight(LanesInt v) { return reinterpret_cast<__m256i>(v); }
inline LanesInt plus_products(LanesInt sum, LanesInt a, LanesInt b) {
  return sum +
         reinterpret_cast<LanesInt>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
inline LanesInt magnitudes(LanesInt shorts) {
  return reinterpret_cast<LanesInt>(_mm256_abs_epi16(reinterpret_cast<__m256i>(shorts)));
}
inline LanesInt mark_at_most(LanesInt bits, LanesInt value, LanesInt limit, int32_t bit) {
  return value > limit ? bits : bits | bit;
}
inline Lanes to_float(LanesInt v) { return reinterpret_cast<Lanes>(_mm256_cvtepi32_ps(reinterpret_cast<__m256i>(v))); }
#endif

/// The smallest of all lanes.
inline float smallest_lane(Lanes v) {
#if QN_LANES >= 8
  __m256 part[kLanes / 8];
  __builtin_memcpy(part, &v, sizeof v);
  const __m256 all = _mm256_min_ps(part[0], part[kLanes / 8 - 1]);
  __m128 least = _mm_min_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  least = _mm_min_ps(least, _mm_movehl_ps(least, least));
  return _mm_cvtss_f32(_mm_min_ss(least, _mm_movehdup_ps(least)));
#else
  float least = v[0];
  for (int lane = 1; lane < kLanes; ++lane) least = v[lane] < least ? v[lane] : least;
  return least;
#endif
}

/// The best group of each lane so far, and how close the next group came.
struct BestGroup {
  Lanes best, second;
  LanesInt group;

  void offer(Lanes score, int32_t g) {
    second = smaller(second, best < score ? score : best);
    group = score < best ? (LanesInt{} + g) : group;
    best = smaller(best, score);
  }
};

}  // namespace
}  // namespace qn::QN_ISA
