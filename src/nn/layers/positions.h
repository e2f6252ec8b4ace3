// Positions: fixed sinusoids or a learned table, indexed by the number of real tokens so far (reference 5.4).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "nn/layers/linear.h"
#include "ops/sequences.h"

namespace qn {

class Positions {
 public:
  /// Learned: a table of max_positions + 2 rows; sinusoidal: computed on demand, no parameter.
  /// `deviation`: of a learned table's first values; without it 1 / sqrt(width).
  Positions(const Scope& scope, int64_t width, int64_t max_positions, bool learned,
            std::optional<double> deviation = {});

  /// x + position rows. `tokens` is [rows, cols]; padding gets the padding row.
  Var forward(Tape& tape, const Var& x, std::span<const int32_t> tokens, int64_t cols);
  /// The same for sequences without padding; rows of no sequence get the padding row.
  Var forward(Tape& tape, const Var& x, const Sequences& sequences);

  /// Row i is at positions[i], counted from 0.
  Var at(Tape& tape, const Var& x, std::span<const int32_t> positions);

  /// Replaces the first rows of the sinusoidal table (tests compare against stored tables).
  void set_sinusoids(std::span<const float> table);

 private:
  /// x + table[index], the largest of which is `largest`.
  Var add(Tape& tape, const Var& x, std::span<const int32_t> index, int32_t largest);
  Tensor sinusoids(const Tape& tape, int64_t rows);
  void grow(int64_t rows);

  int64_t width_, max_positions_;
  Weight* table_ = nullptr;
  std::vector<float> rows_;  // [n, width] in single precision, as the reference computes it
  OwnedTensor fixed_;
  const Memory* fixed_memory_ = nullptr;
};

}  // namespace qn
