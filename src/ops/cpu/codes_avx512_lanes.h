// Vectors of AVX-512 for products with matrices of codes: for files that have set the target and QN_ISA.
#include <immintrin.h>

#include <cstdint>

namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr int kLanes = 16;
  using Vector = __m512;
  static Vector all(float v) { return _mm512_set1_ps(v); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static Vector from_bytes(const uint8_t* bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
  }
  /// table[codes[i]]
  static Vector gather(const float* table, const uint8_t* codes) {
    return _mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))), table,
                               4);
  }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
