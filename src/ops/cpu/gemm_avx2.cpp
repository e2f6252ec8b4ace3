// Products of fp32 matrices for processors with AVX2 and FMA; chosen at run time.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#pragma GCC target("avx2,fma")
#define QN_ISA gemm_avx2
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr int kLanes = 8, kRows = 6;
  using Vector = __m256;
  static Vector all(float v) { return _mm256_set1_ps(v); }
  static Vector repeat(const float* from) { return _mm256_broadcast_ss(from); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vector v) { _mm256_storeu_ps(to, v); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }
  static void copy_rows(float* to, const float* from) { std::memcpy(to, from, kRows * sizeof(float)); }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/gemm_tile.h"

namespace qn::cpu::QN_ISA {
extern const GemmVariant variant;
const GemmVariant variant{"avx2", kRows, kCols, true, multiply, pack_panel, pack_rows};
}  // namespace qn::cpu::QN_ISA
