// Tables of floats for one token, looked up by gathers: for files that have included codes_tile.h and whose Lanes
// gather.
#include <cstring>

#include "ops/cpu/codes_variants.h"

namespace qn::cpu::QN_ISA {
namespace {

void make_float_tables(const FloatTables& a, int64_t begin, int64_t end) {
  using F = Floats<Lanes::kLanes>;
  constexpr int kVectors = 2;
  const int64_t block = a.of.block, entries = a.of.entries;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t k = 0; k < entries; k += kVectors * Lanes::kLanes) {
      typename F::Vector sums[kVectors] = {};
      for (int64_t t = 0; t < block; ++t)
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v)
          sums[v] += a.of.x[j * block + t] * F::load(a.of.centroids + t * entries + k + v * Lanes::kLanes);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) F::store(a.tables + j * entries + k + v * Lanes::kLanes, sums[v]);
    }
}

/// Adds kBlocks blocks, whose tables stay in the first cache, to all rows.
template <int kBlocks>
void add_gathered(const FloatLookups& a, int64_t first) {
  using F = Floats<Lanes::kLanes>;
  constexpr int64_t kLine = 64;
  const int64_t stride = a.stride, entries = a.entries, count = a.count;
  const uint8_t* codes = a.codes + first * stride;
  const float* tables = a.tables + first * entries;
  float* y = a.y;
  // Short runs far apart: the processor does not foresee them. The next rows' first blocks come behind the last ones.
  const uint8_t* ahead = codes + (first + 2 * kBlocks <= a.blocks ? kBlocks * stride : count - first * stride);
  int64_t r = 0;
  for (int64_t line = 0; line < count; line += kLine) {
    for (int j = 0; j < kBlocks; ++j) __builtin_prefetch(ahead + j * stride + line);
    for (const int64_t end = line + kLine < count ? line + kLine : count; r + Lanes::kLanes <= end;
         r += Lanes::kLanes) {
      auto sum = F::load(y + r);
#pragma GCC unroll 4
      for (int j = 0; j < kBlocks; ++j) sum += Lanes::gather(tables + j * entries, codes + j * stride + r);
      F::store(y + r, sum);
    }
  }
  for (; r < count; ++r)
    for (int j = 0; j < kBlocks; ++j) y[r] += tables[j * entries + codes[j * stride + r]];
}

void float_lookups(const FloatLookups& a) {
  constexpr int kBlocks = 4;
  std::memset(a.y, 0, static_cast<size_t>(a.count) * sizeof(float));
  int64_t j = 0;
  for (; j + kBlocks <= a.blocks; j += kBlocks) add_gathered<kBlocks>(a, j);
  for (; j < a.blocks; ++j) add_gathered<1>(a, j);
}

}  // namespace
}  // namespace qn::cpu::QN_ISA
