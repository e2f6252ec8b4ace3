// The updates of a run through batches of items: which items their micro-batches hold, and where the run is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/epoch_sampler.h"
#include "nn/state_dict.h"

namespace qn {

class SampledUpdates {
 public:
  SampledUpdates(BatchList batches, uint64_t seed) : sampler_(std::move(batches), seed) {}
  /// Items that are all alike, in batches of other items every epoch.
  SampledUpdates(int64_t items, int64_t batch_size, uint64_t seed) : sampler_(items, batch_size, seed) {}

  /// These four as in Task; next() is next_update().
  int64_t next(int64_t micro_batches);
  void put_back() { sampler_.restore(before_); }
  bool step_back();
  int64_t per_epoch(int64_t micro_batches) const { return sampler_.updates_per_epoch(micro_batches); }

  /// The items of a micro-batch of the update that was drawn last, and the epoch that they are of.
  std::span<const int64_t> micro_batch(int64_t index) const { return drawn_.groups[static_cast<size_t>(index)]; }
  /// Those of the update that comes next; empty where nobody can tell yet.
  std::vector<std::vector<int64_t>> coming(int64_t micro_batches) const { return sampler_.peek(micro_batches); }
  int64_t drawn_epoch() const { return drawn_.epoch; }

  int64_t epoch() const { return sampler_.state().epoch; }
  bool end_of_epoch() const { return sampler_.end_of_epoch(); }
  const BatchList& batches() const { return sampler_.micro_batches(); }
  /// Number `i` of `count` batches that lie evenly among all of them, which are sorted by length.
  std::span<const int64_t> example(int64_t i, int64_t count) const;

  /// Checksums of the data, for checkpoints.
  void of_data(uint64_t train_checksum, uint64_t valid_checksum);
  /// Where the run is (entries "sampler/..."), and which data and batches it is in.
  void save(StateDict& state) const;
  /// Goes on from there. Throws qn::Error when data or batches are other ones; `folder` and `items` ("tokens") are for
  /// the message. Checkpoints of older programs have no checksums.
  void load(const StateDict& state, const std::string& folder, const std::string& items);

 private:
  struct Drawn {
    std::vector<std::vector<int64_t>> groups;
    int64_t epoch = 1;
  };
  EpochSampler sampler_;
  Drawn drawn_, previous_;  // the update that was drawn last, and the one before
  uint64_t train_checksum_ = 0, valid_checksum_ = 0;
  SamplerState before_;  // where the sampler was when the last one was drawn
};

}  // namespace qn
