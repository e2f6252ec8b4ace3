// Products with matrices of codes for processors with AVX512_VBMI; chosen at run time. One instruction looks 64 codes
// up in a table of 128 bytes that two registers hold. Entries are whole numbers of three bytes, one table for each, so
// that results are as exact as sums of floats; sums of a table's bytes are taken in 16 bits.
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 on its own unpack and unmasked intrinsics
#include <immintrin.h>

#include <cstdint>

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma")
#define QN_ISA codes_vbmi
#include "ops/cpu/codes_avx512_lanes.h"
#include "ops/cpu/codes_tile.h"

namespace qn::cpu::QN_ISA {
namespace {

constexpr int kPlanes = 3;            // bytes of an entry
constexpr int32_t kMiddle = 1 << 23;  // of entries, whose sign it takes away
constexpr int64_t kAhead = 6;         // blocks between a prefetch and its use
constexpr int64_t kMostBytes = 257;   // whose sum fits 16 bits

/// Byte `plane` of 64 numbers.
__m512i bytes_of(const __m512i (&numbers)[4], __m512i places) {
  const __m512i low = _mm512_permutex2var_epi8(numbers[0], places, numbers[1]);
  const __m512i high = _mm512_permutex2var_epi8(numbers[2], places, numbers[3]);
  return _mm512_mask_blend_epi64(0xf0, low, high);
}

void make_tables(const ByteTables& a, int64_t begin, int64_t end) {
  const __m512i middle = _mm512_set1_epi32(kMiddle);
  alignas(64) uint8_t places[kPlanes][64];
  for (int p = 0; p < kPlanes; ++p)
    for (int i = 0; i < 64; ++i) places[p][i] = static_cast<uint8_t>(i % 32 * 4 + p);
  const __m512i place[kPlanes] = {_mm512_load_si512(places[0]), _mm512_load_si512(places[1]),
                                  _mm512_load_si512(places[2])};
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t k = 0; k < a.entries; k += 64) {
      __m512 sums[4] = {};
      for (int64_t t = 0; t < a.block; ++t) {
        const __m512 x = _mm512_set1_ps(a.x[j * a.block + t] * a.scale);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
          sums[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(a.transposed + t * a.entries + k + i * 16), sums[i]);
      }
      __m512i numbers[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) numbers[i] = _mm512_add_epi32(_mm512_cvtps_epi32(sums[i]), middle);
#pragma GCC unroll 3
      for (int p = 0; p < kPlanes; ++p)
        _mm512_store_si512(a.tables + (j * kPlanes + p) * a.entries + k, bytes_of(numbers, place[p]));
    }
  }
}

/// A table of kTables registers of 64 bytes.
template <int kTables>
struct Table {
  __m512i part[kTables];
  explicit Table(const uint8_t* from) {
#pragma GCC unroll 4
    for (int i = 0; i < kTables; ++i) part[i] = _mm512_load_si512(from + 64 * i);
  }
  __m512i operator[](__m512i codes) const {
    if constexpr (kTables == 1) return _mm512_permutexvar_epi8(codes, part[0]);
    if constexpr (kTables == 2) return _mm512_permutex2var_epi8(part[0], codes, part[1]);
    if constexpr (kTables == 4)
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), _mm512_permutex2var_epi8(part[0], codes, part[1]),
                                    _mm512_permutex2var_epi8(part[2], codes, part[3]));
  }
};

/// Adds sums of bytes in 16 bits, those of even and of odd rows, times 2^shift. Of every 16 rows each of the four
/// vectors has four: vector q of lane l those from 16 l + 4 q on.
void add_up(__m512i (&sums)[4], __m512i even, __m512i odd, unsigned shift) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
  const __m512i wide[4] = {_mm512_unpacklo_epi16(low, zero), _mm512_unpackhi_epi16(low, zero),
                           _mm512_unpacklo_epi16(high, zero), _mm512_unpackhi_epi16(high, zero)};
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) sums[q] = _mm512_add_epi32(sums[q], _mm512_slli_epi32(wide[q], shift));
}

/// y[0 .. 64) from the sums of 64 rows, as many as `rows` has bits.
void store_rows(float* y, const __m512i (&sums)[4], __m512i offset, __m512 inverse, __mmask64 rows) {
  // Lanes of 128 bits, transposed.
  const __m512i a = _mm512_shuffle_i32x4(sums[0], sums[1], 0x88), b = _mm512_shuffle_i32x4(sums[0], sums[1], 0xdd);
  const __m512i c = _mm512_shuffle_i32x4(sums[2], sums[3], 0x88), d = _mm512_shuffle_i32x4(sums[2], sums[3], 0xdd);
  const __m512i in_order[4] = {_mm512_shuffle_i32x4(a, c, 0x88), _mm512_shuffle_i32x4(b, d, 0x88),
                               _mm512_shuffle_i32x4(a, c, 0xdd), _mm512_shuffle_i32x4(b, d, 0xdd)};
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const __m512 values = _mm512_cvtepi32_ps(_mm512_sub_epi32(in_order[q], offset));
    _mm512_mask_storeu_ps(y + 16 * q, static_cast<__mmask16>(rows >> (16 * q)), _mm512_mul_ps(values, inverse));
  }
}

template <int kTables, int kVectors>
void lookups_of(const ByteLookups& a) {
  const __m512i low = _mm512_set1_epi16(0xff);
  __mmask64 rows[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const int64_t left = a.count - 64 * v;
    rows[v] = left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
  }
  __m512i sums[kVectors][4] = {};
  for (int p = 0; p < kPlanes; ++p) {
    for (int64_t begin = 0; begin < a.blocks; begin += kMostBytes) {
      const int64_t end = begin + kMostBytes < a.blocks ? begin + kMostBytes : a.blocks;
      __m512i even[kVectors], odd[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = _mm512_setzero_si512();
      for (int64_t j = begin; j < end; ++j) {
        const Table<kTables> table(a.tables + (j * kPlanes + p) * 64 * kTables);
        // Short runs far apart: the processor does not foresee them.
        if (p == 0)
          for (int v = 0; v < kVectors; ++v) _mm_prefetch(a.codes + (j + kAhead) * a.stride + 64 * v, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const __m512i codes = _mm512_maskz_loadu_epi8(rows[v], a.codes + j * a.stride + 64 * v);
          const __m512i bytes = table[codes];
          even[v] = _mm512_add_epi16(even[v], _mm512_and_si512(bytes, low));
          odd[v] = _mm512_add_epi16(odd[v], _mm512_srli_epi16(bytes, 8));
        }
      }
      for (int v = 0; v < kVectors; ++v) add_up(sums[v], even[v], odd[v], static_cast<unsigned>(8 * p));
    }
  }
  const __m512i offset = _mm512_set1_epi32(static_cast<int32_t>(static_cast<uint32_t>(a.blocks) * uint32_t{kMiddle}));
  for (int v = 0; v < kVectors; ++v) store_rows(a.y + 64 * v, sums[v], offset, _mm512_set1_ps(a.inverse), rows[v]);
}

template <int kTables>
void lookups_in(const ByteLookups& a) {
  if (a.count > 256) return lookups_of<kTables, 8>(a);
  if (a.count > 128) return lookups_of<kTables, 4>(a);
  return a.count > 64 ? lookups_of<kTables, 2>(a) : lookups_of<kTables, 1>(a);
}

void lookups(const ByteLookups& a) {
  if (a.entries == 64) return lookups_in<1>(a);
  return a.entries == 128 ? lookups_in<2>(a) : lookups_in<4>(a);
}

}  // namespace

extern const CodesVariant variant;
const CodesVariant variant{"avx512vbmi", block_dots, grid_dots, make_tables, lookups};

}  // namespace qn::cpu::QN_ISA
