// Sixteen Philox4x32-10 blocks at a time, one per lane: the bulk generator behind dropout and noise.
#pragma once

#include <array>
#include <cstdint>

#include "core/random.h"

namespace qn::cpu {

/// Words 0..3 of 16 consecutive blocks.
struct PhiloxLanes {
  alignas(64) std::array<std::array<uint32_t, 16>, 4> word;
};

/// Blocks first .. first + 15 of the stream.
inline void philox_lanes(PhiloxLanes& out, uint64_t first, const RandomStream& stream) {
  using Lanes __attribute__((vector_size(64))) = uint32_t;
  using Wide __attribute__((vector_size(64))) = uint64_t;
  constexpr Lanes kOffsets = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  // `first` is a multiple of 16, so adding the lane number never carries out of the low word.
  Lanes c0 = static_cast<uint32_t>(first) + kOffsets;
  Lanes c1 = Lanes{} + static_cast<uint32_t>(first >> 32);
  Lanes c2 = Lanes{} + stream.update();
  Lanes c3 = Lanes{} + stream.micro_batch();
  uint32_t k0 = stream.key()[0], k1 = stream.key()[1];
  // Low and high halves of the 32 x 32 bit products: even and odd lanes separately, as the hardware multiplies.
  const auto multiply = [](Lanes x, uint64_t factor, Lanes& low, Lanes& high) {
    const Wide wide = reinterpret_cast<Wide>(x);
    const Wide even = (wide & 0xffffffffULL) * factor;
    const Wide odd = (wide >> 32) * factor;
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
  __builtin_memcpy(out.word[0].data(), &c0, 64);
  __builtin_memcpy(out.word[1].data(), &c1, 64);
  __builtin_memcpy(out.word[2].data(), &c2, 64);
  __builtin_memcpy(out.word[3].data(), &c3, 64);
}

/// One bit per lane: half `h` (0 low, 1 high) of the word is at least `threshold`.
inline uint16_t at_least(const std::array<uint32_t, 16>& words, int half, uint32_t threshold) {
  uint32_t bits = 0;
#pragma GCC unroll 16
  for (uint32_t lane = 0; lane < 16; ++lane)
    bits |= static_cast<uint32_t>(((words[lane] >> (16 * half)) & 0xffff) >= threshold) << lane;
  return static_cast<uint16_t>(bits);
}

/// Fills two words (128 elements) of keep bits: group g uses blocks 16 g .. 16 g + 15; element 16 * part + lane of the
/// group is half part % 2 of word part / 2 of block 16 g + lane. Any backend draws the same bits from this rule.
inline void keep_bits_group(uint64_t* two_words, int64_t group, uint32_t threshold, const RandomStream& stream) {
  PhiloxLanes lanes;
  philox_lanes(lanes, static_cast<uint64_t>(group) * 16, stream);
  for (int w = 0; w < 2; ++w) {
    uint64_t bits = 0;
    for (int part = 0; part < 4; ++part) {
      const auto& word = lanes.word[static_cast<size_t>(w * 2 + part / 2)];
      bits |= static_cast<uint64_t>(at_least(word, part % 2, threshold)) << (16 * part);
    }
    two_words[w] = bits;
  }
}

/// Dropout probability as a threshold on 16 bits.
inline uint32_t drop_threshold(double p) { return static_cast<uint32_t>(p * 65536.0 + 0.5); }

}  // namespace qn::cpu
