#include "tasks/sampled_updates.h"

#include <utility>

namespace qn {

int64_t SampledUpdates::next(int64_t micro_batches) {
  before_ = sampler_.state();
  std::vector<std::vector<int64_t>> groups = sampler_.next_update(micro_batches);
  previous_ = std::exchange(drawn_, {std::move(groups), sampler_.state().epoch});
  return std::ssize(drawn_.groups);
}

bool SampledUpdates::step_back() {
  if (previous_.groups.empty()) return false;
  drawn_ = std::exchange(previous_, {});
  return true;
}

std::span<const int64_t> SampledUpdates::example(int64_t i, int64_t count) const {
  return batches()[(2 * i + 1) * batches().size() / (2 * count)];
}

void SampledUpdates::save(StateDict& state) const {
  const SamplerState& sampler = sampler_.state();
  state.ints["sampler/epoch"] = sampler.epoch;
  state.ints["sampler/next"] = sampler.next;
  state.ints["sampler/samples"] = sampler.samples;
}

void SampledUpdates::load(const StateDict& state) {
  sampler_.restore({.epoch = state.integer("sampler/epoch"),
                    .next = state.integer("sampler/next"),
                    .samples = state.integer("sampler/samples")});
}

}  // namespace qn
