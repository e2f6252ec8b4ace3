// numpy's default generator, bit for bit: what fairseq draws the masks of masked language models with
// (tests/golden/README.md).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace qn {

/// np.random.default_rng(seed): PCG64 (XSL-RR 128/64; O'Neill 2014), seeded through numpy's SeedSequence.
class Pcg64 {
 public:
  explicit Pcg64(uint32_t seed);

  uint64_t next64();
  /// Halves of 64-bit numbers, the lower one first: the upper one is kept for the next call.
  uint32_t next32();
  /// rng.random(): uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next64() >> 11) * 0x1.0p-53; }
  /// rng.choice(n, count, replace=False), in its order. `count` is at most `n`, which is below 2^32.
  std::vector<int64_t> choice(int64_t n, int64_t count);

 private:
  // The state's high and low halves, and those of the increment.
  struct Wide {
    uint64_t high = 0, low = 0;
  };
  void step();
  /// Uniform in [0, most] (Lemire 2019).
  uint32_t bounded(uint32_t most);
  void shuffle(std::span<int64_t> values, size_t first);

  Wide state_, increment_;
  bool has_half_ = false;
  uint32_t half_ = 0;
};

/// rng.choice(weights.size(), p=weights) again and again.
class WeightedChoice {
 public:
  WeightedChoice() = default;
  /// `weights` are not negative, and one is positive.
  explicit WeightedChoice(std::span<const double> weights);
  int64_t draw(Pcg64& random) const;

 private:
  std::vector<double> sums_;  // cumulative, of 1
};

/// hash((a, b, c)) of CPython from 3.8 on, for numbers from 0 to 2^61 - 2.
int64_t python_tuple_hash(const std::array<int64_t, 3>& values);

/// int(hash((seed, epoch, item)) % 1e6): the seed of what is random in an item of an epoch.
uint32_t item_seed(int64_t seed, int64_t epoch, int64_t item);

}  // namespace qn
