// Sixteen Philox4x32-10 blocks at a time, one per lane: the bulk generator behind dropout and noise.
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <array>
#include <cstdint>

#include "core/random.h"
#include "ops/keep_bits.h"

namespace qn::cpu {

/// Words 0..3 of 16 consecutive blocks.
struct PhiloxLanes {
  alignas(64) std::array<std::array<uint32_t, 16>, 4> word;
};

/// Vectors as wide as the processor's: with wider ones, compilers take every step through memory.
#ifdef __AVX512F__
inline constexpr size_t kVectorBytes = 64;
#else
inline constexpr size_t kVectorBytes = 32;
#endif
using NarrowLanes __attribute__((vector_size(kVectorBytes))) = uint32_t;
using WideLanes __attribute__((vector_size(kVectorBytes))) = uint64_t;

/// Products of the lower 32 bits of each 64-bit lane with `factor`. By reference: how wide vectors are passed by value
/// depends on the instruction set, which compilers warn about.
inline void widening_product(const WideLanes& x, uint32_t factor, WideLanes& product) {
#if defined(__AVX512F__)  // one instruction; the compiler would take its slow 64-bit multiplication
  // The form with a mask (of ones, so it costs nothing): the plain one trips GCC 12's -Wuninitialized (bug 105593).
  product = reinterpret_cast<WideLanes>(_mm512_maskz_mul_epu32(0xff, reinterpret_cast<const __m512i&>(x),
                                                               _mm512_set1_epi64(static_cast<int64_t>(factor))));
#elif defined(__AVX2__)
  product = reinterpret_cast<WideLanes>(
      _mm256_mul_epu32(reinterpret_cast<const __m256i&>(x), _mm256_set1_epi64x(static_cast<int64_t>(factor))));
#else
  product = (x & 0xffffffffULL) * static_cast<uint64_t>(factor);
#endif
}

/// As many blocks of the stream as a vector has lanes, from block first + lane on.
inline void philox_vector(PhiloxLanes& out, uint64_t first, size_t lane, const RandomStream& stream) {
  using Lanes = NarrowLanes;
  using Wide = WideLanes;
  Lanes offsets;
  for (size_t l = 0; l < kVectorBytes / 4; ++l) offsets[l] = static_cast<uint32_t>(lane + l);
  // `first` is a multiple of 16, so adding the lane number never carries out of the low word.
  Lanes c0 = static_cast<uint32_t>(first) + offsets;
  Lanes c1 = Lanes{} + static_cast<uint32_t>(first >> 32);
  Lanes c2 = Lanes{} + stream.update();
  Lanes c3 = Lanes{} + stream.micro_batch();
  uint32_t k0 = stream.key()[0], k1 = stream.key()[1];
  // Low and high halves of the 32 x 32 bit products: even and odd lanes separately, as the hardware multiplies.
  const auto multiply = [](const Lanes& x, uint32_t factor, Lanes& low, Lanes& high) {
    const Wide wide = reinterpret_cast<Wide>(x);
    Wide even, odd;
    widening_product(wide, factor, even);
    widening_product(wide >> 32, factor, odd);
    low = reinterpret_cast<Lanes>((even & 0xffffffffULL) | (odd << 32));
    high = reinterpret_cast<Lanes>((even >> 32) | (odd & 0xffffffff00000000ULL));
  };
  for (int round = 0; round < 10; ++round) {
    Lanes low0, high0, low1, high1;
    multiply(c0, 0xD2511F53, low0, high0);
    multiply(c2, 0xCD9E8D57, low1, high1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  __builtin_memcpy(&out.word[0][lane], &c0, kVectorBytes);
  __builtin_memcpy(&out.word[1][lane], &c1, kVectorBytes);
  __builtin_memcpy(&out.word[2][lane], &c2, kVectorBytes);
  __builtin_memcpy(&out.word[3][lane], &c3, kVectorBytes);
}

/// Blocks first .. first + 15 of the stream, `first` a multiple of 16.
inline void philox_lanes(PhiloxLanes& out, uint64_t first, const RandomStream& stream) {
  for (size_t lane = 0; lane < 16; lane += kVectorBytes / 4) philox_vector(out, first, lane, stream);
}

/// One bit per 16-bit half of the sixteen lanes of a word: set where it is at least `threshold`. Bit 2 * lane + half.
inline uint32_t at_least(const std::array<uint32_t, 16>& words, uint32_t threshold) {
#ifdef __AVX512BW__
  return _mm512_cmpge_epu16_mask(_mm512_load_si512(words.data()), _mm512_set1_epi16(static_cast<int16_t>(threshold)));
#elif defined(__AVX2__)
  const __m256i least = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  const auto compared = [&](const uint32_t* eight) {
    const __m256i halves = _mm256_load_si256(reinterpret_cast<const __m256i*>(eight));
    return _mm256_cmpeq_epi16(_mm256_max_epu16(halves, least), halves);
  };
  // Packing works within 128 bits, so that quarters have to be put in order.
  const __m256i bytes = _mm256_packs_epi16(compared(words.data()), compared(words.data() + 8));
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xD8)));
#else
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; ++i)
    bits |= static_cast<uint32_t>(((words[i / 2] >> (16 * (i % 2))) & 0xffff) >= threshold) << i;
  return bits;
#endif
}

/// Fills the two words (128 elements) of keep bits of a group.
inline void keep_bits_group(uint64_t* two_words, int64_t group, uint32_t threshold, const RandomStream& stream) {
  PhiloxLanes lanes;
  philox_lanes(lanes, static_cast<uint64_t>(group) * 16, stream);
  two_words[0] = at_least(lanes.word[0], threshold) | static_cast<uint64_t>(at_least(lanes.word[1], threshold)) << 32;
  two_words[1] = at_least(lanes.word[2], threshold) | static_cast<uint64_t>(at_least(lanes.word[3], threshold)) << 32;
}

}  // namespace qn::cpu
