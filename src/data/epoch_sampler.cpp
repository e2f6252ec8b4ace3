#include "data/epoch_sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/text.h"
#include "data/numpy_random.h"

namespace qn {

EpochSampler::EpochSampler(BatchList micro_batches, uint64_t seed)
    : micro_batches_(std::move(micro_batches)), seed_(seed), order_(static_cast<size_t>(micro_batches_.size())) {
  QN_CHECK(micro_batches_.size() > 0, "there are no batches to train on; the training data is empty");
  shuffle_epoch();
}

std::vector<std::vector<int64_t>> EpochSampler::next_update(int64_t group) {
  QN_ASSERT(group >= 1, "{} micro-batches per update", group);
  if (end_of_epoch()) {
    ++state_.epoch;
    state_.next = 0;
    shuffle_epoch();
  }
  std::vector<std::vector<int64_t>> update;
  const int64_t end = std::min(state_.next + group, micro_batches_.size());
  for (; state_.next < end; ++state_.next) {
    const std::span<const int64_t> items = micro_batches_[order_[static_cast<size_t>(state_.next)]];
    update.emplace_back(items.begin(), items.end());
    state_.samples += std::ssize(items);
  }
  return update;
}

void EpochSampler::restore(const SamplerState& state) {
  QN_CHECK(state.epoch >= 1 && state.next >= 0 && state.samples >= 0 && state.next <= micro_batches_.size(),
           "cannot resume at micro-batch {} of epoch {}: an epoch of this data has {} micro-batches; the data or the "
           "batch limits changed since the checkpoint was written",
           state.next, state.epoch, micro_batches_.size());
  state_ = state;
  shuffle_epoch();
}

uint64_t EpochSampler::fingerprint() const {
  const uint64_t parts[] = {micro_batches_.fingerprint(), seed_};
  return hash_bytes(parts, sizeof(parts));
}

void EpochSampler::shuffle_epoch() {
  std::iota(order_.begin(), order_.end(), 0);
  numpy_shuffle(seed_ + static_cast<uint64_t>(state_.epoch), order_);
}

}  // namespace qn
