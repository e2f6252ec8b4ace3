// Randomness as a pure function: Philox4x32-10 (Salmon et al., SC 2011) of (seed, purpose, id, update, micro-batch,
// element). Nothing depends on the rank, the number of ranks, the number of threads or the backend.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace qn {

/// What the numbers are for; part of the key, so that streams never overlap. Values reach the disk through checkpoints'
/// seeds: never renumber.
enum class Purpose : uint32_t {
  init = 1,
  dropout = 2,
  noise = 3,
  kmeans_init = 4,
  kmeans_split = 5,
  data = 6,
  layerdrop = 7,
  sampling = 8,
  test = 99
};

/// Names one stream of random numbers.
struct RandomKey {
  uint64_t seed = 0;
  Purpose purpose = Purpose::test;
  uint64_t id = 0;           ///< weight, layer or call site
  uint32_t update = 0;       ///< number of completed updates
  uint32_t micro_batch = 0;  ///< global index within the update
};

using Philox4 = std::array<uint32_t, 4>;

/// One Philox4x32-10 block.
Philox4 philox4x32(Philox4 counter, std::array<uint32_t, 2> key);

/// A stable 64-bit hash of a name, for RandomKey::id.
uint64_t hash_name(const char* name);

/// Random access into the stream of one key. Element i is word i % 4 of block i / 4.
class RandomStream {
 public:
  explicit RandomStream(const RandomKey& key);

  /// Words 4 * block .. 4 * block + 3.
  Philox4 block(uint64_t block) const {
    return philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), update_, micro_batch_}, key_);
  }
  uint32_t u32(uint64_t i) const { return block(i / 4)[i % 4]; }
  /// Uniform in [0, 1), 53 bits, from words 2i and 2i + 1.
  double uniform(uint64_t i) const;
  /// Standard normal (Box-Muller) from block i.
  double normal(uint64_t i) const;
  /// `count` distinct integers below `range` in random order; `count` <= `range`.
  std::vector<int64_t> sample_without_replacement(int64_t range, int64_t count) const;

  std::array<uint32_t, 2> key() const { return key_; }
  uint32_t update() const { return update_; }
  uint32_t micro_batch() const { return micro_batch_; }

 private:
  std::array<uint32_t, 2> key_;
  uint32_t update_, micro_batch_;
};

}  // namespace qn
