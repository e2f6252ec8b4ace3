// Decides which micro-batches make up which update. The order is a pure function of (frozen batches, seed, epoch); the
// number of ranks plays no part, so a run may resume anywhere on any number of ranks and sees the same data.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batching.h"

namespace qn {

/// Where a run is in its data; stored in checkpoints.
struct SamplerState {
  int64_t epoch = 1;    ///< from 1
  int64_t next = 0;     ///< micro-batches of this epoch that are done, counted over all ranks
  int64_t samples = 0;  ///< items seen since the start of the run
  bool operator==(const SamplerState&) const = default;
};

class EpochSampler {
 public:
  /// `micro_batches`: from freeze_batches(), the same list on all ranks. Epoch e goes through the list as shuffled by
  /// np.random.shuffle under seed + e (fairseq semantics 6.4).
  EpochSampler(BatchList micro_batches, uint64_t seed);
  /// Items that are all alike: epoch e puts those of a list shuffled as above into batches of at most `batch_size`,
  /// which differ by one item at most.
  EpochSampler(int64_t items, int64_t batch_size, uint64_t seed);

  /// The item lists of the next `group` micro-batches of the global order; the last update of an epoch may have fewer,
  /// never none. Rank r of W takes the lists i with i % W == r. After the end of an epoch the next one begins.
  std::vector<std::vector<int64_t>> next_update(int64_t group);

  /// What next_update() will return; empty where that begins another epoch.
  std::vector<std::vector<int64_t>> peek(int64_t group) const;

  /// True when the epoch's last micro-batch has been handed out.
  bool end_of_epoch() const { return state_.next == micro_batches_.size(); }
  const BatchList& micro_batches() const { return micro_batches_; }
  /// Updates per epoch with groups of `group`.
  int64_t updates_per_epoch(int64_t group) const { return (micro_batches_.size() + group - 1) / group; }

  const SamplerState& state() const { return state_; }
  /// Continues from a stored state. Throws qn::Error if there is no such place in this data.
  void restore(const SamplerState& state);

  /// Equal for equal frozen batches and seed: a resumed run compares it with the checkpoint's to detect other data.
  uint64_t fingerprint() const;

 private:
  void shuffle_epoch();
  void shuffle_items();

  BatchList micro_batches_;
  uint64_t seed_;
  int64_t items_ = 0, batch_size_ = 0;  // of items that are all alike
  SamplerState state_;
  std::vector<int64_t> order_;
};

}  // namespace qn
