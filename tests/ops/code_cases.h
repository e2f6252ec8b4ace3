// Matrices of codes without pattern, with what they decode to in double.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "ops/code_weight.h"

namespace qn::test {

/// What a matrix of codes is made from.
struct CodeCase {
  int64_t rows = 0, cols = 0;
  int64_t block = 0, levels = 0;  ///< of product quantization, else 0
  int bits = 8;                   ///< of a grid
  bool scales = false;            ///< of rows

  std::string text() const {
    return block > 0 ? fmt::format("[{}, {}] d={} K={}{}", rows, cols, block, levels, scales ? " scales" : "")
                     : fmt::format("[{}, {}] int{}{}", rows, cols, bits, scales ? " per row" : "");
  }
};

class CodedMatrix {
 public:
  CodedMatrix(const CodeCase& c, const Kernels& kernels) : case_(c) {
    if (c.block > 0)
      make_blocks(kernels);
    else
      make_grid(kernels);
  }
  const CodeWeight& weight() const { return weight_; }
  const std::vector<double>& dense() const { return dense_; }

 private:
  static float number(int64_t i) { return static_cast<float>(std::sin(0.7 * static_cast<double>(i) + 0.3)); }
  int64_t code(int64_t i, int64_t levels) const { return (i * 7919 + i / 13 * 31) % levels; }
  void make_blocks(const Kernels& kernels) {
    const CodeCase& c = case_;
    int bits = 1;
    while ((int64_t{1} << bits) < c.levels) ++bits;
    std::vector<float> centroids, table(256);
    for (int64_t i = 0; i < c.levels * c.block; ++i) centroids.push_back(number(i));
    for (int64_t i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = number(i + 5) + 0.1f;
    std::vector<uint8_t> row_scales;
    for (int64_t r = 0; c.scales && r < c.rows; ++r) row_scales.push_back(static_cast<uint8_t>(r * 37 + 11));
    std::vector<uint16_t> codes;
    for (int64_t i = 0; i < c.rows * (c.cols / c.block); ++i) codes.push_back(static_cast<uint16_t>(code(i, c.levels)));
    dense_.resize(static_cast<size_t>(c.rows * c.cols));
    for (int64_t r = 0; r < c.rows; ++r)
      for (int64_t l = 0; l < c.cols; ++l) {
        const int64_t k = codes[static_cast<size_t>(l / c.block * c.rows + r)];
        const double scale = c.scales ? static_cast<double>(table[row_scales[static_cast<size_t>(r)]]) : 1.0;
        dense_[static_cast<size_t>(r * c.cols + l)] =
            scale * static_cast<double>(centroids[static_cast<size_t>(k * c.block + l % c.block)]);
      }
    weight_ = CodeWeight(
        kernels, CodeWeight::Blocks{c.rows, c.cols, c.block, c.levels, bits, packed(codes, bits), centroids, row_scales,
                                    c.scales ? std::span<const float>(table) : std::span<const float>()});
  }
  void make_grid(const Kernels& kernels) {
    const CodeCase& c = case_;
    std::vector<float> scales, zeros;
    for (int64_t r = 0; r < (c.scales ? c.rows : 1); ++r) {
      scales.push_back(0.01f * static_cast<float>(1 + r % 7));
      zeros.push_back(static_cast<float>((r * 5 + 3) % (int64_t{1} << c.bits)));
    }
    std::vector<uint16_t> codes;
    for (int64_t i = 0; i < c.rows * c.cols; ++i) codes.push_back(static_cast<uint16_t>(code(i, int64_t{1} << c.bits)));
    for (int64_t i = 0; i < c.rows * c.cols; ++i) {
      const auto g = static_cast<size_t>(c.scales ? i / c.cols : 0);
      dense_.push_back((static_cast<double>(codes[static_cast<size_t>(i)]) - static_cast<double>(zeros[g])) *
                       static_cast<double>(scales[g]));
    }
    weight_ = CodeWeight(kernels, CodeWeight::Grid{c.rows, c.cols, c.bits, packed(codes, c.bits), scales, zeros});
  }
  /// As docs/formats.md has it, written down a second time: bit by bit.
  std::span<const std::byte> packed(const std::vector<uint16_t>& codes, int bits) {
    packed_.assign((codes.size() * static_cast<size_t>(bits) + 7) / 8, std::byte{0});
    for (size_t i = 0; i < codes.size(); ++i)
      for (int b = 0; b < bits; ++b)
        if ((codes[i] >> b & 1) != 0) {
          const size_t place = i * static_cast<size_t>(bits) + static_cast<size_t>(b);
          packed_[place / 8] |= std::byte{1} << (place % 8);
        }
    return packed_;
  }

  CodeCase case_;
  CodeWeight weight_;
  std::vector<double> dense_;
  std::vector<std::byte> packed_;
};

inline std::vector<CodeCase> code_cases() {
  std::vector<CodeCase> cases;
  // Rows around what the loops take at a time, blocks of every size, numbers of centroids around the tables' sizes.
  for (const int64_t rows : {1, 7, 63, 64, 65, 127, 129, 257, 511, 512, 513, 1030})
    cases.push_back({.rows = rows, .cols = 48, .block = 8, .levels = 256, .scales = rows % 2 == 1});
  for (const int64_t levels : {1, 2, 3, 16, 17, 64, 65, 100, 128, 129, 200, 255, 257, 1000, 4096, 65536})
    cases.push_back({.rows = 301, .cols = 40, .block = 8, .levels = levels, .scales = levels == 64});
  for (const int64_t block : {1, 2, 3, 4, 5, 8, 12, 16, 20, 24, 32})
    for (const int64_t levels : {256, 300})
      cases.push_back({.rows = 200, .cols = 7 * block, .block = block, .levels = levels});
  // More blocks than 16 bits can add up bytes of.
  cases.push_back({.rows = 150, .cols = 4 * 1100, .block = 4, .levels = 256});
  cases.push_back({.rows = 700, .cols = 1024, .block = 8, .levels = 256, .scales = true});  // for several threads
  for (int bits = 2; bits <= 8; ++bits)
    for (const bool per_row : {false, true})
      cases.push_back({.rows = 30 + bits, .cols = 61 + bits, .bits = bits, .scales = per_row});
  cases.push_back({.rows = 1, .cols = 1, .bits = 4});
  cases.push_back({.rows = 259, .cols = 512, .bits = 4, .scales = true});
  cases.push_back({.rows = 258, .cols = 512, .bits = 8});
  return cases;
}

}  // namespace qn::test
