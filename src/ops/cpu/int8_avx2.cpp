// int8 products for processors with AVX2; chosen at run time. Its product of bytes (vpmaddubsw) adds two of them in 16
// bits and saturates, so codes are widened to 16 bits, whose products are added in 32.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "ops/cpu/int8_variants.h"

#pragma GCC target("avx2")
#define QN_ISA int8_avx2
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr const char* kName = "avx2";
  static constexpr int kRows = 6, kVectors = 2, kLanes = 8, kGroup = 2;
  using Code = int16_t;
  using Sums = __m256i;
  using Weights = __m256i;

  static Sums zero() { return _mm256_setzero_si256(); }
  static Weights load(const int8_t* panel) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(panel)));
  }
  static __m256i broadcast(const Code* codes) {
    int32_t pair;
    std::memcpy(&pair, codes, sizeof pair);
    return _mm256_set1_epi32(pair);
  }
  static Sums add_products(Sums sums, Weights weights, __m256i codes) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(weights, codes));
  }
  static void store(int32_t* to, Sums sums) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), sums); }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/int8_tile.h"
