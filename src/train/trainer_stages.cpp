// What a trainer does beside updates when it quantizes: stages, and what the finetuning after each is about.
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/fault_point.h"
#include "core/profiler.h"
#include "train/shown_work.h"
#include "train/trainer.h"

namespace qn {

/// The stage that is being finetuned; before the first one: that.
int64_t Trainer::current_stage() const { return std::max<int64_t>(ipq_->stages_done() - 1, 0); }

const OptimizerConfig& Trainer::current_optimizer() const {
  return ipq_ ? finetuning_.optimizer(current_stage()) : config_.optimizer;
}

void Trainer::renew_optimizer() {
  const double initial_lr = ipq_ ? finetuning_.peak_lr(current_stage()) : config_.schedule.lr;
  optimizer_ = make_optimizer(current_optimizer(), module_.parameters(), initial_lr);
}

double Trainer::current_lr() const {
  return ipq_ ? finetuning_.learning_rate(current_stage(), state_.update)
              : learning_rate(config_.schedule, state_.update, max_updates());
}

bool Trainer::at_stage_end() const {
  return ipq_ && ipq_->stages_done() > 0 && state_.update == finetuning_.start_of(ipq_->stages_done());
}

/// Not shortly before a stage's end: what has moved must find its place.
void Trainer::after_stage_update() {
  stage_model_->add_update();
  const int64_t every = config_.ipq.reassign_updates, done = ipq_->stages_done();
  if (every == 0) return;
  const int64_t in_stage = state_.update - finetuning_.start_of(done - 1);
  if (in_stage % every != 0 || state_.update + every > finetuning_.start_of(done)) return;
  drain();
  const int64_t moved = ipq_->move_codes();
  if (progress_)
    progress_->message(fmt::format("update {} | {} blocks moved to other centroids", state_.update, moved));
}

void Trainer::end_stage() {
  drain();
  stage_model_->finish(evaluation_);
}

bool Trainer::run_due_stages() {
  while (ipq_ && ipq_->stages_done() < ipq_->stages() && state_.update >= finetuning_.start_of(ipq_->stages_done())) {
    drain();
    end_stage();
    measure_inputs();
    const int64_t every = config_.ipq.save_every_kmeans_iterations;
    std::optional<ShownWork> shown(std::in_place, fmt::format("k-means of stage {}", ipq_->stages_done() + 1),
                                   progress(), status());
    const auto report = ipq_->run_stage([&](int64_t iteration) {
      tell_work(iteration, ipq_->kmeans_iterations());
      note_kmeans(ipq_->stages_done() + 1, iteration, ipq_->kmeans_objectives());
      const bool stop = agreed_stop();
      if (stop || save_due_ || (every > 0 && iteration % every == 0)) save({});
      return !stop;
    });
    shown.reset();
    if (!report) return false;
    if (!measure_norms(plan_.stage(report->stage))) return false;
    fault_point("stage.swapped");
    kmeans_seconds_ = report->seconds;
    if (status_) status_->forget_speed();
    stage_model_->begin();
    renew_optimizer();
    updates_->forget_skipped();
    spikes_.clear();
    evaluation_.reset();
    report_stage(*report);
    check_result();
    save({});
    fault_point("stage.saved");
  }
  return true;
}

/// A run that was finished and gets more updates in its last stage: what it ended with, its best model or the average,
/// is what the stage goes on from and has to be better than.
void Trainer::go_on_with_last_stage() {
  if (!ipq_ || stage_model_->active() || ipq_->stages_done() < ipq_->stages() || finished()) return;
  stage_model_->begin();
  if (stage_model_->keeps_best()) validate_now();
}

/// Another list of teachers is a change of the configuration, of which the log tells; other files by the same names are
/// told by nothing else.
void Trainer::check_teacher(const StateDict& state) const {
  if (teacher_.empty() || !state.texts.contains("teacher")) return;
  QN_CHECK_USAGE(state.text("teacher") == teacher_,
                 "ipq.teacher: {} {} not what the run has learned from so far (its checkpoint remembers the checksum): "
                 "put the old file back, or start anew with --fresh",
                 fmt::join(config_.ipq.teacher, ", "), config_.ipq.teacher.size() == 1 ? "is" : "are");
}

/// Evaluation passes over `count` training micro-batches, which ranks share; after(i) is called on every rank, and
/// false ends them: then so is the result.
bool Trainer::calibration_passes(int64_t count, const PassOptions& options, const std::function<bool(int64_t)>& after) {
  const ProfileScope phase(Phase::forward);
  Arena arena(*kernels_.memory);
  Tape tape(kernels_, arena, dtype_, {});
  for (int64_t i = 0; i < count; ++i) {
    if (i % comm_.size() == comm_.rank()) {
      tape.restart(options);
      task_.example(i, count).losses(tape);
      arena.reset();
    }
    if (!after(i)) return false;
  }
  return true;
}

/// Tells the next stage how much the columns of its weights matter, on the model as the stage finds it.
void Trainer::measure_inputs() {
  const std::vector<std::string> weights = ipq_->weights_with_columns();
  const double exponent = finetuning_.input_exponent(ipq_->stages_done());
  if (exponent == 0.0 || weights.empty()) return;
  const InputStatistics statistics(module_, weights);
  calibration_passes(config_.ipq.calibration_batches, {}, [](int64_t) { return true; });
  ColumnImportances found = statistics.importances(exponent, across_ranks());
  spdlog::info("stage {}: importance of the inputs of {} weights from {} training micro-batches",
               ipq_->stages_done() + 1, found.size(), config_.ipq.calibration_batches);
  ipq_->set_column_importances(std::move(found));
}

/// What comes out of weights that have become codes is no longer what the running averages are of. False when it was
/// stopped.
bool Trainer::measure_norms(const std::vector<WeightPlan>& quantized) {
  RunningStatistics& norms = module_.statistics();
  const bool coarse = std::any_of(quantized.begin(), quantized.end(), [](const WeightPlan& weight) {
    return weight.quantizer->kmeans().has_value() || weight.quantizer->layout(weight.rows, weight.cols).bits() < 8;
  });
  if (norms.empty() || !config_.ipq.measure_norms.value_or(coarse)) return true;
  const int64_t all = task_.updates_per_epoch(1), asked = config_.ipq.calibration_batches;
  const int64_t count = all > 0 ? std::min(all, asked) : asked;
  std::vector<double> pooled(norms.pooled_size());
  norms.freeze(false);
  kernels_.fill(norms.sums(), 0.0);
  const bool done = calibration_passes(count, {.batch_statistics = true}, [&](int64_t i) {
    if (i % comm_.size() == comm_.rank()) norms.pool(kernels_, pooled);
    kernels_.fill(norms.sums(), 0.0);
    return (i + 1) % comm_.size() != 0 || !agreed_stop();
  });
  norms.freeze(config_.ipq.freeze_norms);
  if (!done) return false;
  comm_.all_reduce_sum(pooled);
  norms.replace(kernels_, pooled);
  module_.refresh();
  evaluation_.reset();
  spdlog::info("batch normalisations: running averages of {} training micro-batches", count);
  return true;
}

/// Gives activations their range on training data, if training has not. Micro-batches are taken in groups, of which
/// each counts as an update, so that the result is the same on any number of ranks.
void Trainer::calibrate() {
  ActivationObserver* observer = module_.activations().observer();
  if (observer == nullptr || observer->calibrated()) return;
  const int64_t count = config_.ipq.calibration_batches, group = observer->calibration_group(count);
  observer->set_calibrating(true);
  calibration_passes(count, {}, [&](int64_t i) {
    if ((i + 1) % group == 0 || i + 1 == count) observer->end_update(kernels_, across_ranks());
    return true;
  });
  observer->set_calibrating(false);
  evaluation_.reset();
  spdlog::info("activations: ranges of {} places from {} training micro-batches", plan_.activations.size(), count);
  save({});
}

}  // namespace qn
