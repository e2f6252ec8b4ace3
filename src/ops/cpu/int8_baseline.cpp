// int8 products in the build's own instruction set. The layout is that of AVX512_VNNI, whose instruction is spelled
// out.
#include <cstdint>

#include "ops/cpu/int8_variants.h"

#define QN_ISA int8_baseline
namespace qn::cpu::QN_ISA {
namespace {

struct Lanes {
  static constexpr const char* kName = "baseline";
  static constexpr int kRows = 2, kVectors = 1, kLanes = 16, kGroup = 4;
  using Code = uint8_t;
  struct Sums {
    int32_t of[kLanes];
  };
  using Weights = const int8_t*;

  static Sums zero() { return {}; }
  static Weights load(const int8_t* panel) { return panel; }
  static const Code* broadcast(const Code* codes) { return codes; }
  static Sums add_products(Sums sums, Weights weights, const Code* codes) {
    for (int c = 0; c < kLanes; ++c)
      for (int i = 0; i < kGroup; ++i) sums.of[c] += weights[c * kGroup + i] * codes[i];
    return sums;
  }
  static void store(int32_t* to, Sums sums) {
    for (int c = 0; c < kLanes; ++c) to[c] = sums.of[c];
  }
};

}  // namespace
}  // namespace qn::cpu::QN_ISA
#include "ops/cpu/int8_tile.h"
