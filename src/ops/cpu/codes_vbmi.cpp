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
constexpr int64_t kAhead = 16;        // blocks at a time, and between a prefetch and its use
constexpr int64_t kMostBytes = 256;   // whose sum fits 16 bits, and that are a multiple of kAhead

/// The lowest three bytes of 64 numbers, a table each. Entry n of a table is of number byte_place(n).
void store_bytes(const __m512i (&numbers)[4], uint8_t* to, int64_t plane) {
  // In every lane of 128 bits: four numbers' first bytes, then their second ones and so on.
  const __m512i place = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m512i grouped[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) grouped[i] = _mm512_shuffle_epi8(numbers[i], place);
  const __m512i a = _mm512_unpacklo_epi32(grouped[0], grouped[1]), b = _mm512_unpacklo_epi32(grouped[2], grouped[3]);
  const __m512i c = _mm512_unpackhi_epi32(grouped[0], grouped[1]), d = _mm512_unpackhi_epi32(grouped[2], grouped[3]);
  _mm512_store_si512(to, _mm512_unpacklo_epi64(a, b));
  _mm512_store_si512(to + plane, _mm512_unpackhi_epi64(a, b));
  _mm512_store_si512(to + 2 * plane, _mm512_unpacklo_epi64(c, d));
}

void make_tables(const ByteTables& a, int64_t begin, int64_t end) {
  const __m512i middle = _mm512_set1_epi32(kMiddle);
  const int64_t block = a.of.block, entries = a.of.entries;
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t k = 0; k < entries; k += 64) {
      __m512 sums[4] = {};
      for (int64_t t = 0; t < block; ++t) {
        const __m512 x = _mm512_set1_ps(a.of.x[j * block + t]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
          sums[i] = _mm512_fmadd_ps(x, _mm512_loadu_ps(a.of.centroids + t * entries + k + i * 16), sums[i]);
      }
      __m512i numbers[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) numbers[i] = _mm512_add_epi32(_mm512_cvtps_epi32(sums[i]), middle);
      store_bytes(numbers, a.tables + j * kPlanes * entries + k, entries);
    }
  }
}

/// Looks 64 codes up in tables of kTables times 64 bytes. What the codes need is found out once for all tables.
template <int kTables>
struct Lookup {
  __m512i codes;
  __mmask64 second = 0, third = 0, fourth = 0;  // codes in the table's further quarters
  explicit Lookup(__m512i c) : codes(c) {
    if constexpr (kTables < 4) return;
    const __mmask64 high = _mm512_movepi8_mask(c), odd = _mm512_movepi8_mask(_mm512_add_epi8(c, c));
    second = _kandn_mask64(high, odd);
    third = _kandn_mask64(odd, high);
    fourth = _kand_mask64(high, odd);
  }
  __m512i in(const uint8_t* table) const {
    const auto part = [table](int i) { return _mm512_load_si512(table + 64 * i); };
    if constexpr (kTables == 1) return _mm512_permutexvar_epi8(codes, part(0));
    if constexpr (kTables == 2) return _mm512_permutex2var_epi8(part(0), codes, part(1));
    // Four shuffles of one register are less than two of two, which take three steps each.
    __m512i bytes = _mm512_permutexvar_epi8(codes, part(0));
    bytes = _mm512_mask_permutexvar_epi8(bytes, second, codes, part(1));
    bytes = _mm512_mask_permutexvar_epi8(bytes, third, codes, part(2));
    return _mm512_mask_permutexvar_epi8(bytes, fourth, codes, part(3));
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

/// Sums in 16 bits of 64 rows' bytes: of even rows with 256 times those of odd ones, and of odd rows.
struct Halves {
  __m512i all[kPlanes], odd[kPlanes];
};

/// Adds blocks [begin, end) of kVectors times 64 rows.
template <int kTables, int kVectors>
void add_blocks(const ByteLookups& a, int64_t begin, int64_t end, int64_t row, const __mmask64* rows, Halves* halves) {
  Halves sums[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) sums[v] = halves[v];
  for (int64_t j = begin; j < end; ++j) {
    const uint8_t *codes = a.codes + j * a.stride + row, *tables = a.tables + j * kPlanes * 64 * kTables;
    // The next rows' first blocks come behind the last ones.
    const uint8_t* ahead =
        codes + (j + kAhead < a.blocks ? kAhead * a.stride : kLookupRows + (kAhead - a.blocks) * a.stride);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      // Short runs far apart: the processor does not foresee them.
      _mm_prefetch(ahead + 64 * v, _MM_HINT_T0);
      const Lookup<kTables> lookup(_mm512_maskz_loadu_epi8(rows[v], codes + 64 * v));
#pragma GCC unroll 3
      for (int p = 0; p < kPlanes; ++p) {
        const __m512i bytes = lookup.in(tables + p * 64 * kTables);
        sums[v].all[p] = _mm512_add_epi16(sums[v].all[p], bytes);
        sums[v].odd[p] = _mm512_add_epi16(sums[v].odd[p], _mm512_srli_epi16(bytes, 8));
      }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) halves[v] = sums[v];
}

/// A few blocks at a time, whose tables stay in the first cache while all rows are looked up.
template <int kTables>
void lookups_in(const ByteLookups& a) {
  constexpr int kVectors = kLookupRows / 64;
  const int vectors = static_cast<int>((a.count + 63) / 64);
  __mmask64 rows[kVectors] = {};
  __m512i sums[kVectors][4] = {};
  for (int v = 0; v < vectors; ++v)
    rows[v] = a.count - 64 * v >= 64 ? ~__mmask64{0} : (__mmask64{1} << (a.count - 64 * v)) - 1;
  for (int64_t begin = 0; begin < a.blocks; begin += kMostBytes) {
    const int64_t end = begin + kMostBytes < a.blocks ? begin + kMostBytes : a.blocks;
    Halves halves[kVectors] = {};
    for (int64_t j = begin; j < end; j += kAhead) {
      const int64_t last = j + kAhead < end ? j + kAhead : end;
      int v = 0;
      for (; v + 2 <= vectors; v += 2) add_blocks<kTables, 2>(a, j, last, 64 * v, rows + v, halves + v);
      if (v < vectors) add_blocks<kTables, 1>(a, j, last, 64 * v, rows + v, halves + v);
    }
    for (int v = 0; v < vectors; ++v)
      for (int p = 0; p < kPlanes; ++p) {
        const __m512i odd = halves[v].odd[p], even = _mm512_sub_epi16(halves[v].all[p], _mm512_slli_epi16(odd, 8));
        add_up(sums[v], even, odd, static_cast<unsigned>(8 * p));
      }
  }
  const __m512i offset = _mm512_set1_epi32(static_cast<int32_t>(static_cast<uint32_t>(a.blocks) * uint32_t{kMiddle}));
  for (int v = 0; v < vectors; ++v) store_rows(a.y + 64 * v, sums[v], offset, _mm512_set1_ps(a.inverse), rows[v]);
}

void lookups(const ByteLookups& a) {
  if (a.entries == 64) return lookups_in<1>(a);
  return a.entries == 128 ? lookups_in<2>(a) : lookups_in<4>(a);
}

}  // namespace

extern const CodesVariant variant;
const CodesVariant variant{"avx512vbmi", kTokens,     token_tables, block_dots, grid_dots,
                           column_dots,  make_tables, lookups,      nullptr,    nullptr};

}  // namespace qn::cpu::QN_ISA
