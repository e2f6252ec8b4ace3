// int8 products for processors with AVX512_VNNI; chosen at run time. One instruction adds four products of bytes to a
// sum of 32 bits, without saturation.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "ops/cpu/int8_variants.h"

#pragma GCC target("avx512f,avx512vnni")
#define QN_ISA int8_vnni
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr const char* kName = "avx512vnni";
  static constexpr int kRows = 12, kVectors = 2, kLanes = 16, kGroup = 4;
  using Code = uint8_t;
  using Sums = __m512i;
  using Weights = __m512i;

  static Sums zero() { return _mm512_setzero_si512(); }
  static Weights load(const int8_t* panel) { return _mm512_load_si512(panel); }
  static __m512i broadcast(const Code* codes) {
    int32_t four;
    std::memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Sums add_products(Sums sums, Weights weights, __m512i codes) {
    return _mm512_dpbusd_epi32(sums, codes, weights);
  }
  static void store(int32_t* to, Sums sums) { _mm512_store_si512(to, sums); }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/int8_tile.h"
