// What a trainer does about losses that leap and ranks that part company.
#include <spdlog/spdlog.h>

#include "train/broadcast_state.h"
#include "train/rank_agreement.h"
#include "train/trainer.h"

namespace qn {
namespace {

/// The newest checkpoint of fewer than `update` updates that can be read.
std::optional<StateDict> checkpoint_before(const std::filesystem::path& folder, int64_t update) {
  for (const std::filesystem::path& path : resumable_checkpoints(folder)) {
    try {
      StateDict state = load_state(path);
      if (state.integer("update") < update) return state;
    } catch (const Error& error) {
      spdlog::warn("{}", error.what());
    }
  }
  return std::nullopt;
}

}  // namespace

/// Stages change what the module is made of, and leap by themselves: there, spikes are only told.
bool Trainer::rolls_back() const {
  return config_.train.on_spike == OnSpike::rollback && !options_.quantize &&
         state_.rollbacks < config_.train.rollback_limit;
}

/// On every rank, with the same numbers.
void Trainer::look_for_spike(int64_t update, double loss, double grad_norm) {
  const std::optional<Spike> spike = spikes_.add(loss, grad_norm);
  if (!spike) return;
  const std::string text = fmt::format("update {}: {}", update, text_of(*spike));
  if (rolls_back() && spike_update_ < 0) {
    spike_update_ = update;
    spike_text_ = text;
  }
  if (!metrics_) return;
  const bool spent = config_.train.on_spike == OnSpike::rollback && !options_.quantize && !rolls_back();
  spdlog::warn(
      "{}{}", text,
      spent ? fmt::format("; after {} rollbacks there are no more (train.rollback_limit)", state_.rollbacks) : "");
  write_record({{"kind", std::string("spike")},
                {"update", update},
                {"what", spike->what},
                {"value", spike->value},
                {"usual", spike->usual},
                {"message", text}});
}

/// Everything is as it was in the newest checkpoint before the spike, but the data: what was seen since then is left
/// out. False where there is no such checkpoint. Collective.
bool Trainer::roll_back() {
  drain();
  finish_copies();
  const int64_t from = state_.update, spike = std::exchange(spike_update_, -1);
  StateDict state;
  int64_t found = 0;
  if (folder_) {
    folder_->wait();
    if (auto before = checkpoint_before(folder_->dir(), spike >= 0 ? spike : from)) {
      state = std::move(*before);
      found = 1;
    } else {
      spdlog::warn(
          "there is no checkpoint from before update {} to go back to: the run goes on (save_every_updates "
          "keeps some)",
          spike);
    }
  }
  if (comm_.all_reduce_sum_value(found) == 0) return false;
  broadcast_state(comm_, state);
  restore(state);
  begin_average(state);
  state_.update = state.integer("update");
  ++state_.rollbacks;
  evaluation_.reset();
  if (metrics_) {
    metrics_->truncate_after(state_.update, 0);
    restart_events();
    const std::string text = fmt::format(
        "{}; back from update {} to the checkpoint of update {}, leaving out the data since then "
        "(rollback {} of at most {})",
        spike_text_, from, state_.update, state_.rollbacks, config_.train.rollback_limit);
    spdlog::warn("{}", text);
    write_record({{"kind", std::string("rollback")}, {"update", state_.update}, {"from", from}, {"message", text}});
    status_->forget_speed();
  }
  save({});  // a run that is resumed leaves the same data out
  return true;
}

void Trainer::check_ranks() const {
  const int64_t every = config_.train.check_ranks_every_updates;
  if (every > 0 && state_.update % every == 0)
    check_same_parameters(comm_, module_.parameters(), kernels_, state_.update);
}

}  // namespace qn
