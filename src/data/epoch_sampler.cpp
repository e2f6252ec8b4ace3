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

EpochSampler::EpochSampler(int64_t items, int64_t batch_size, uint64_t seed)
    : seed_(seed), items_(items), batch_size_(batch_size) {
  QN_CHECK(items > 0, "there are no items to train on; the training data is empty");
  QN_ASSERT(batch_size >= 1);
  shuffle_epoch();
}

std::vector<std::vector<int64_t>> EpochSampler::peek(int64_t group) const {
  std::vector<std::vector<int64_t>> update;
  const int64_t end = std::min(state_.next + group, micro_batches_.size());
  for (int64_t i = state_.next; i < end; ++i) {
    const std::span<const int64_t> items = micro_batches_[order_[static_cast<size_t>(i)]];
    update.emplace_back(items.begin(), items.end());
  }
  return update;
}

std::vector<std::vector<int64_t>> EpochSampler::next_update(int64_t group) {
  QN_ASSERT(group >= 1, "{} micro-batches per update", group);
  if (end_of_epoch()) {
    ++state_.epoch;
    state_.next = 0;
    shuffle_epoch();
  }
  std::vector<std::vector<int64_t>> update = peek(group);
  state_.next += std::ssize(update);
  for (const std::vector<int64_t>& items : update) state_.samples += std::ssize(items);
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
  if (items_ > 0) {
    const int64_t alike[] = {items_, batch_size_, static_cast<int64_t>(seed_)};
    return hash_bytes(alike, sizeof(alike));
  }
  const uint64_t parts[] = {micro_batches_.fingerprint(), seed_};
  return hash_bytes(parts, sizeof(parts));
}

void EpochSampler::shuffle_items() {
  std::vector<int64_t> all(static_cast<size_t>(items_));
  std::iota(all.begin(), all.end(), int64_t{0});
  numpy_shuffle(seed_ + static_cast<uint64_t>(state_.epoch), all);
  const int64_t count = (items_ + batch_size_ - 1) / batch_size_;
  micro_batches_ = {};
  for (int64_t b = 0; b < count; ++b) {
    const int64_t begin = b * items_ / count, end = (b + 1) * items_ / count;
    micro_batches_.push_back(std::span(all).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
  }
  order_.resize(static_cast<size_t>(count));
  std::iota(order_.begin(), order_.end(), 0);
}

void EpochSampler::shuffle_epoch() {
  if (items_ > 0) return shuffle_items();
  std::iota(order_.begin(), order_.end(), 0);
  numpy_shuffle(seed_ + static_cast<uint64_t>(state_.epoch), order_);
}

}  // namespace qn
