// Products with matrices of codes in vectors of floats. Included by one file per instruction set, which has set the
// target and defines QN_ISA and, in namespace qn::cpu::QN_ISA, the class Lanes. Calls no function that other files may
// share: the linker could pick the copy that was compiled here for processors that cannot run it.
#include <cstring>
#include <type_traits>

#include "ops/cpu/codes_variants.h"

namespace qn::cpu::QN_ISA {
namespace {

/// D adjacent floats as one register.
template <int D>
struct Floats {
  typedef float Vector __attribute__((vector_size(D * sizeof(float))));
  static Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
  static void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }
};
template <>
struct Floats<1> {
  using Vector = float;
  static float load(const float* from) { return *from; }
  static void store(float* to, float v) { *to = v; }
};

template <typename Code, int kGroup>
struct Codes {
  static_assert(kGroup * sizeof(Code) % sizeof(uint64_t) == 0);
  uint64_t words[kGroup * sizeof(Code) / sizeof(uint64_t)];
  explicit Codes(const Code* from) { std::memcpy(words, from, sizeof words); }
  /// One load for several codes: loads are what limits these loops.
  uint64_t operator[](int i) const {
    constexpr int kPerWord = sizeof(uint64_t) / sizeof(Code), kBits = 8 * sizeof(Code);
    return words[i / kPerWord] >> (i % kPerWord * kBits) & ((uint64_t{1} << kBits) - 1);
  }
};

/// D elements at a time of blocks of kBlock, which 0 leaves open.
template <int D, int64_t kBlock, typename Code>
void dots_of(const BlockDots& a) {
  using F = Floats<D>;
  const int64_t block = kBlock > 0 ? kBlock : a.block;
  constexpr int kGroup = 8;
  const auto* codes = static_cast<const Code*>(a.codes);
  for (int64_t g = 0; g < kDotRows; g += kGroup) {
    typename F::Vector sums[kGroup];
#pragma GCC unroll 8
    for (int i = 0; i < kGroup; ++i) sums[i] = F::load(a.sums + (g + i) * kSumLanes);
    for (int64_t j = 0; j < a.blocks; ++j) {
      const Codes<Code, kGroup> code(codes + j * a.stride + g);
      for (int64_t t = 0; t < block; t += D) {
        const auto x = F::load(a.x + j * block + t);
        const float* centroids = a.centroids + t;
#pragma GCC unroll 8
        for (int i = 0; i < kGroup; ++i) sums[i] += x * F::load(centroids + code[i] * static_cast<uint64_t>(block));
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kGroup; ++i) F::store(a.sums + (g + i) * kSumLanes, sums[i]);
  }
}

template <int kBlock, typename Code>
void dots_of_size(const BlockDots& a) {
  dots_of<(kBlock < Lanes::kLanes ? kBlock : Lanes::kLanes), kBlock, Code>(a);
}

template <typename Code>
void block_dots_of(const BlockDots& a) {
  switch (a.block) {
    case 4:
      return dots_of_size<4, Code>(a);
    case 8:
      return dots_of_size<8, Code>(a);
    case 16:
      return dots_of_size<16, Code>(a);
    default:
      break;
  }
  if (a.block % 8 == 0) return dots_of<(Lanes::kLanes < 8 ? Lanes::kLanes : 8), 0, Code>(a);
  return a.block % 4 == 0 ? dots_of<4, 0, Code>(a) : dots_of<1, 0, Code>(a);
}

void block_dots(const BlockDots& a) { a.wide ? block_dots_of<uint16_t>(a) : block_dots_of<uint8_t>(a); }

/// D elements at a time.
template <int D>
void column_dots_of(const ColumnDots& a) {
  using F = Floats<D>;
  constexpr int kGroup = 8;
  for (int64_t t = 0; t < a.block; t += D) {
    const float* centroids = a.centroids + t;
    typename F::Vector sums[kGroup] = {};
    int64_t r = 0;
    for (; r + kGroup <= a.rows; r += kGroup) {
      const Codes<uint8_t, kGroup> code(a.codes + r);
#pragma GCC unroll 8
      for (int i = 0; i < kGroup; ++i)
        sums[i] += a.x[r + i] * F::load(centroids + code[i] * static_cast<uint64_t>(a.block));
    }
    for (; r < a.rows; ++r) sums[0] += a.x[r] * F::load(centroids + a.codes[r] * a.block);
    F::store(a.y + t, ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])));
  }
}

void column_dots(const ColumnDots& a) {
  if (a.block % 8 == 0) return column_dots_of<(Lanes::kLanes < 8 ? Lanes::kLanes : 8)>(a);
  a.block % 4 == 0 ? column_dots_of<4>(a) : column_dots_of<1>(a);
}

void grid_dots(const GridDots& a) {
  typename Lanes::Vector sums[kGridRows] = {}, zeros[kGridRows];
  for (int i = 0; i < kGridRows; ++i) zeros[i] = Lanes::all(a.zeros[i]);
  int64_t c = 0;
  for (; c + Lanes::kLanes <= a.cols; c += Lanes::kLanes) {
    const auto x = Lanes::load(a.x + c);
#pragma GCC unroll 4
    for (int i = 0; i < kGridRows; ++i) sums[i] += (Lanes::from_bytes(a.rows[i] + c) - zeros[i]) * x;
  }
  for (int i = 0; i < kGridRows; ++i) {
    float sum = 0.0f;
    for (int l = 0; l < Lanes::kLanes; ++l) sum += sums[i][l];
    for (int64_t rest = c; rest < a.cols; ++rest) sum += (static_cast<float>(a.rows[i][rest]) - a.zeros[i]) * a.x[rest];
    a.y[i] = sum;
  }
}

/// Tokens of a group: as many as a register of this instruction set holds, but eight at least.
constexpr int kTokens = Lanes::kLanes < 8 ? 8 : Lanes::kLanes;
using Group = Floats<kTokens>;

/// Tables of `count` blocks; kBlock is their size where it is known here, else 0.
template <int kBlock>
void make_token_tables(const TokenTables& a, int64_t first, int64_t count) {
  const int64_t block = kBlock > 0 ? kBlock : a.block;
  constexpr int kEntries = 4;  // at a time, for one load of x
  for (int64_t j = 0; j < count; ++j) {
    const float* x = a.x + (first + j) * block * kTokens;
    float* table = a.tables + j * a.levels * kTokens;
    int64_t k = 0;
    for (; k + kEntries <= a.levels; k += kEntries) {
      const float* centroids = a.centroids + k * block;
      typename Group::Vector sums[kEntries] = {};
#pragma GCC unroll 8
      for (int64_t t = 0; t < block; ++t)
#pragma GCC unroll 4
        for (int i = 0; i < kEntries; ++i) sums[i] += centroids[i * block + t] * Group::load(x + t * kTokens);
#pragma GCC unroll 4
      for (int i = 0; i < kEntries; ++i) Group::store(table + (k + i) * kTokens, sums[i]);
    }
    for (; k < a.levels; ++k) {
      typename Group::Vector sum = {};
      for (int64_t t = 0; t < block; ++t) sum += a.centroids[k * block + t] * Group::load(x + t * kTokens);
      Group::store(table + k * kTokens, sum);
    }
  }
}

/// Adds the entries of kBlocks blocks from `first` on to the sums of kRows rows from `row` on.
template <int kBlocks, int kRows>
void add_entries(const TokenTables& a, int64_t first, int64_t row) {
  using Word = std::conditional_t<kRows == 8, uint64_t, uint8_t>;
  Word codes[kBlocks];
  const float* tables[kBlocks];
#pragma GCC unroll 4
  for (int j = 0; j < kBlocks; ++j) {
    std::memcpy(&codes[j], a.codes + (first + j) * a.stride + row, sizeof(Word));
    tables[j] = a.tables + j * a.levels * kTokens;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    float* to = a.sums + (row + i) * kTokens;
    auto sum = Group::load(to);
#pragma GCC unroll 4
    for (int j = 0; j < kBlocks; ++j) sum += Group::load(tables[j] + (uint64_t{codes[j]} >> (8 * i) & 255) * kTokens);
    Group::store(to, sum);
  }
}

template <int kBlocks>
void add_tables(const TokenTables& a, int64_t first) {
  int64_t row = 0;
  for (; row + 8 <= a.rows; row += 8) add_entries<kBlocks, 8>(a, first, row);
  for (; row < a.rows; ++row) add_entries<kBlocks, 1>(a, first, row);
}

void token_tables(const TokenTables& a) {
  const auto make = a.block == 8 ? make_token_tables<8> : a.block == 4 ? make_token_tables<4> : make_token_tables<0>;
  int64_t j = 0;
  for (; j + kTableBlocks <= a.blocks; j += kTableBlocks) {
    make(a, j, kTableBlocks);
    add_tables<kTableBlocks>(a, j);
  }
  for (; j < a.blocks; ++j) {
    make(a, j, 1);
    add_tables<1>(a, j);
  }
}

}  // namespace
}  // namespace qn::cpu::QN_ISA
