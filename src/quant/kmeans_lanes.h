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
