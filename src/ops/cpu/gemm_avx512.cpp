// Products of fp32 matrices for processors with AVX-512; chosen at run time.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 on its own intrinsics
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx2,fma")
#define QN_ISA gemm_avx512
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr int kLanes = 16, kRows = 14;
  using Vector = __m512;
  static Vector all(float v) { return _mm512_set1_ps(v); }
  static Vector repeat(const float* from) { return _mm512_set1_ps(*from); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }
  static Vector add_product(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
  static void copy_rows(float* to, const float* from) { std::memcpy(to, from, kRows * sizeof(float)); }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/gemm_tile.h"

namespace qn::cpu::QN_ISA {
extern const GemmVariant variant;
// Second-level caches of these processors are large enough for a tile's columns of a few hundred rows.
const GemmVariant variant{"avx512", kRows, kCols, false, multiply, pack_panel, pack_rows};
}  // namespace qn::cpu::QN_ISA
