// What a trainer does beside updates so that nothing is lost: checkpoints, when they are due, and the last ones.
#include <array>
#include <chrono>

#include "core/fault_point.h"
#include "core/profiler.h"
#include "ops/host_access.h"
#include "train/divergence.h"
#include "train/final_save.h"
#include "train/run_record.h"
#include "train/stage_starts.h"
#include "train/trainer.h"

namespace qn {

/// What rank 0 sees of its clock and its disk counts for all.
bool Trainer::agreed_stop() {
  if (folder_) folder_->poll();
  note_saved();
  const bool asked = options_.stop_requested && options_.stop_requested();
  const double minutes = config_.checkpoint.save_every_minutes;
  const bool due =
      folder_ && minutes > 0.0 && Clock::now() - last_save_ >= std::chrono::duration<double>(minutes * 60.0);
  const bool stopping = asked || (folder_ && folder_->failed_too_long());
  std::array<double, 3> answers{stopping ? 1.0 : 0.0, due ? 1.0 : 0.0, spike_update_ >= 0 ? 1.0 : 0.0};
  if (comm_.size() > 1) {
    const ProfileScope phase(Phase::all_reduce);
    comm_.all_reduce_max(answers);
    // The time limit as rank 0 sees it, so that all ranks end in the same update.
    comm_.broadcast(std::as_writable_bytes(std::span(&state_.training_seconds, 1)));
  }
  save_due_ = answers[1] > 0.0;
  spiked_ = answers[2] > 0.0;
  return answers[0] > 0.0;
}

StateDict Trainer::capture(std::vector<StateDict::LateCopy>* late) {
  StateDict state;
  state.late = late;
  {
    const AveragesInPlace averages(ema_ ? &*ema_ : nullptr);
    save_module(module_, state);
    if (ema_) ema_->save(kTrained, state);
  }
  optimizer_->save(module_.parameters(), state);
  updates_->save(state);
  noise_->save(state);
  if (ipq_) ipq_->save(state);
  if (ipq_) save_stage_starts(finetuning_, plan_.stages, state);
  if (stage_model_) stage_model_->save(state);
  task_.save(state);
  state_.save(state);
  spikes_.save(state);
  state.texts["plan"] = plan_to_text(plan_);
  state.texts["config"] = config_text_;
  if (!source_.empty()) state.texts["source"] = source_;
  if (!source_layers_.empty()) state.texts["source_layers"] = source_layers_;
  if (!teacher_.empty()) state.texts["teacher"] = teacher_;
  state.late = nullptr;
  return state;
}

/// Where training just goes on, large tensors are copied while it computes its next gradient: copying a billion bytes
/// holds an update up for as long as some tenths of the writing take.
void Trainer::save(const SaveReason& reason, bool goes_on) {
  drain();
  finish_copies();
  last_save_ = Clock::now();
  save_due_ = false;
  const ProfileScope phase(Phase::checkpoint, state_.update);
  if (!folder_) return;
  const bool later = goes_on && on_host(kernels_) && !options_.quantize && average() == nullptr;
  std::vector<StateDict::LateCopy> late;
  const auto state = std::make_shared<StateDict>(capture(later ? &late : nullptr));
  fault_point("checkpoint.captured");
  const std::shared_future<void> complete = copies_.start(std::move(late), state);
  if (!later) finish_copies();
  folder_->save(state, task_.epoch(), state_.update, reason, complete);
}

/// Before anything that has been saved may change.
void Trainer::finish_copies() {
  try {
    copies_.finish();
  } catch (const Error& error) {
    fail("{}; {}", error.what(), divergence_advice_now());
  }
}

/// A run that has given up on its disk does not wait for it again.
void Trainer::finish_saving() {
  finish_copies();
  const bool given_up = folder_ && folder_->failed_too_long();
  qn::finish_saving(folder_ ? &*folder_ : nullptr, metrics_ ? &*metrics_ : nullptr, comm_,
                    {.seconds = given_up ? 0.0 : config_.checkpoint.final_retry_minutes * 60.0,
                     .stop_requested = options_.stop_requested});
}

}  // namespace qn
