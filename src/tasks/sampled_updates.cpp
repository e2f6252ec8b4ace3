#include "tasks/sampled_updates.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "core/text.h"

namespace qn {
namespace {

constexpr const char *kFingerprint = "data_fingerprint", *kTrainChecksum = "train_checksum",
                     *kValidChecksum = "valid_checksum";

bool is_other(const StateDict& state, const std::string& entry, uint64_t checksum) {
  const auto stored = state.texts.find(entry);
  return stored != state.texts.end() && stored->second != hex64(checksum);
}

}  // namespace

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

void SampledUpdates::of_data(uint64_t train_checksum, uint64_t valid_checksum) {
  train_checksum_ = train_checksum;
  valid_checksum_ = valid_checksum;
}

void SampledUpdates::save(StateDict& state) const {
  const SamplerState& sampler = sampler_.state();
  state.ints["sampler/epoch"] = sampler.epoch;
  state.ints["sampler/next"] = sampler.next;
  state.ints["sampler/samples"] = sampler.samples;
  state.texts[kFingerprint] = hex64(sampler_.fingerprint());
  state.texts[kTrainChecksum] = hex64(train_checksum_);
  state.texts[kValidChecksum] = hex64(valid_checksum_);
}

void SampledUpdates::load(const StateDict& state, const std::string& folder, const std::string& items) {
  QN_CHECK(
      state.text(kFingerprint) == hex64(sampler_.fingerprint()),
      "the training batches differ from those of the checkpoint (other data, data.* options or seed): restore them, "
      "or start a new run from these weights with checkpoint.init_from and another checkpoint.dir");
  QN_CHECK(!is_other(state, kTrainChecksum, train_checksum_),
           "the {} of {}/train are not those that the checkpoint was trained on (as many, but other ones): restore "
           "them, or start a new run from these weights with checkpoint.init_from and another checkpoint.dir",
           items, folder);
  if (is_other(state, kValidChecksum, valid_checksum_))
    spdlog::warn(
        "the validation data are not those of the checkpoint: losses and the best checkpoint from before "
        "cannot be compared with those to come");
  sampler_.restore({.epoch = state.integer("sampler/epoch"),
                    .next = state.integer("sampler/next"),
                    .samples = state.integer("sampler/samples")});
}

}  // namespace qn
