// Products with matrices of codes for processors with AVX2 and FMA; chosen at run time.
#include <immintrin.h>

#include <cstdint>

#pragma GCC target("avx2,fma")
#define QN_ISA codes_avx2
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr int kLanes = 8;
  using Vector = __m256;
  static Vector all(float v) { return _mm256_set1_ps(v); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static Vector from_bytes(const uint8_t* bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
  }
  /// table[codes[i]]
  static Vector gather(const float* table, const uint8_t* codes) {
    return _mm256_i32gather_ps(table, _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))),
                               4);
  }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/codes_tile.h"
//
#include "ops/cpu/codes_gather_tile.h"

namespace qn::cpu::QN_ISA {
extern const CodesVariant variant;
const CodesVariant variant{"avx2",      kTokens, token_tables, block_dots,        grid_dots,
                           column_dots, nullptr, nullptr,      make_float_tables, float_lookups};
}  // namespace qn::cpu::QN_ISA
