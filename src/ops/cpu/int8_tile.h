// A tile of an int8 matrix product in registers. Included by one file per instruction set, which has set the target and
// defines QN_ISA and, in namespace qn::cpu::QN_ISA, the class Lanes. Calls no function that other files may share: the
// linker could pick the copy that was compiled here for processors that cannot run it.
#include "ops/cpu/int8_variants.h"

namespace qn::cpu::QN_ISA {
namespace {

constexpr int kColumns = Lanes::kVectors * Lanes::kLanes;
static_assert(Lanes::kRows * kColumns <= kMostInt8TileSums && 32 % kColumns == 0 && 16 % Lanes::kGroup == 0);

// Loops over rows and vectors must be unrolled before the compiler decides what lives in registers.
template <int kRows>
void multiply_rows(const Int8Tile& tile) {
  const auto* codes = static_cast<const Lanes::Code*>(tile.codes);
  typename Lanes::Sums sums[kRows][Lanes::kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Lanes::kVectors; ++v) sums[r][v] = Lanes::zero();
  const int8_t* panel = tile.panel;
  for (int64_t l = 0; l < tile.depth; l += Lanes::kGroup, panel += kColumns * Lanes::kGroup) {
    typename Lanes::Weights weights[Lanes::kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < Lanes::kVectors; ++v) weights[v] = Lanes::load(panel + v * Lanes::kLanes * Lanes::kGroup);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto x = Lanes::broadcast(codes + r * tile.stride + l);
#pragma GCC unroll 4
      for (int v = 0; v < Lanes::kVectors; ++v) sums[r][v] = Lanes::add_products(sums[r][v], weights[v], x);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Lanes::kVectors; ++v) Lanes::store(tile.sums + r * kColumns + v * Lanes::kLanes, sums[r][v]);
}

template <int kRows>
void multiply_at_most(const Int8Tile& tile) {
  if constexpr (kRows > 1) {
    if (tile.rows < kRows) return multiply_at_most<kRows - 1>(tile);
  }
  multiply_rows<kRows>(tile);
}

}  // namespace

extern const Int8Variant variant;
const Int8Variant variant{Lanes::kName,
                          Lanes::kRows,
                          kColumns,
                          Lanes::kGroup,
                          sizeof(Lanes::Code) == sizeof(int16_t),
                          multiply_at_most<Lanes::kRows>};

}  // namespace qn::cpu::QN_ISA
