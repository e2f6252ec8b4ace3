// What a trainer tells: the log, metrics.jsonl, and where a run has diverged.
#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "core/text.h"
#include "train/divergence.h"
#include "train/trainer.h"

namespace qn {

void Trainer::start_reporting(bool resumed) {
  constexpr int64_t kExamples = 8;
  const PassWork work =
      measure_work(module_, kernels_, dtype_, kExamples, [&](int64_t i) { return task_.example(i, kExamples); });
  throughput_.emplace(work, config_.train, kernels_, dtype_, comm_);
  if (!comm_.is_root() || options_.dry) return;
  if (!resumed) folder_->begin_run();  // last of what can fail: the run that was there stays as it was until now
  metrics_.emplace(folder_->metrics(), resumed);
  if (resumed)
    metrics_->truncate_after(state_.update, ipq_ ? ipq_->stages_done() : 0, ipq_ ? ipq_->kmeans_iteration() : 0);
  restart_events();
  ProgressOptions progress;
  progress.log_interval = config_.train.log_every_updates;
  progress.log_seconds = config_.train.log_every_seconds;
  progress.unit = task_.sample_words().briefly;
  progress.full_speed = throughput_->matmul_rate() / throughput_->flops_per_sample();
  progress_.emplace(std::move(progress));
  start_status(resumed);
}

void Trainer::log_start() const {
  const ParameterStore& store = module_.parameters();
  spdlog::info("model: {} parameters ({} fp32) in {} tensors; computing in {}", group_digits(store.elements()),
               format_bytes(static_cast<uint64_t>(store.elements()) * 4), store.all().size(),
               precision_text(config_.train.precision, dtype_, kernels_));
  spdlog::info("data: {}; {} rank{}", task_.describe_data(config_.train.micro_batches), comm_.size(),
               comm_.size() == 1 ? "" : "s");
  spdlog::info("{}", throughput_->text(task_.sample_words().one));
  const EmaConfig& ema = config_.train.ema;
  if (ema_) spdlog::info("validating and saving moving averages of the weights (train.ema.decay {})", ema.decay);
  if (!ema.on() && (ema.warmup || ema.start_update > 0))
    spdlog::warn("train.ema.warmup and start_update have no effect: train.ema.decay is 0");
  const int64_t per_epoch = task_.updates_per_epoch(1);
  if (per_epoch > 0 && config_.train.micro_batches > per_epoch)
    spdlog::warn(
        "train.micro_batches = {} is more than the {} micro-batches of an epoch: every update has no more than "
        "those",
        config_.train.micro_batches, per_epoch);
  if (config_.train.micro_batches % comm_.size() != 0)
    spdlog::warn("train.micro_batches = {} is no multiple of the {} ranks: some ranks wait in every update",
                 config_.train.micro_batches, comm_.size());
}

void Trainer::report_stage(const StageReport& report) {
  const Evaluation& found = validate_now();
  spdlog::info(
      "stage {} of {}: {} weights, relative error {:.4f}, {} empty clusters filled, k-means {:.1f} s; valid {}",
      report.stage + 1, ipq_->stages(), report.weights, report.relative_error, report.splits, report.seconds,
      found.text());
  if (!metrics_) return;
  if (report.iterations > 0) note_kmeans(report.stage + 1, report.iterations, report.objectives);
  std::vector<MetricField> fields{{"kind", std::string("stage")},
                                  {"update", state_.update},
                                  {"stage", report.stage + 1},
                                  {"weights", report.weights},
                                  {"relative_error", report.relative_error}};
  for (const Metric& metric : found.metrics) fields.push_back({"valid_" + metric.name, metric.value});
  fields.push_back({"seconds", report.seconds});
  write_record(std::move(fields));
}

void Trainer::report(const UpdateResult& result) {
  const Started started = unreported_.front();
  unreported_.pop_front();
  if (result.skipped) ++state_.skipped_updates;
  const double loss = result.loss / static_cast<double>(result.sample_size) / std::numbers::ln2;
  if (!progress_) {
    if (!result.skipped) look_for_spike(started.update, loss, result.grad_norm);
    return;
  }
  if (result.skipped) report_skipped(started.update, result);
  clipped_ += result.clipped ? 1 : 0;
  if (++reported_ == 1)
    spdlog::info("{}", memory_text(module_.parameters(), *optimizer_, average(), updates_->arena(), kernels_));
  const std::vector<Metric> metrics = task_.training_metrics(loss);
  const UpdateStats stats{.update = started.update,
                          .max_updates = max_updates(),
                          .epoch = started.epoch,
                          .samples = result.sample_size,
                          .loss_base2 = loss,
                          .metrics = text_of(metrics),
                          .lr = started.lr,
                          .grad_norm = result.grad_norm,
                          .clip_share = static_cast<double>(clipped_) / static_cast<double>(reported_),
                          .seconds = started.seconds,
                          .peak_rss_bytes = peak_rss_bytes()};
  progress_->report(stats);
  note_update(stats);
  std::vector<MetricField> fields{
      {"kind", std::string("train")}, {"update", started.update}, {"epoch", started.epoch}, {"loss", loss}};
  for (const Metric& metric : metrics) fields.push_back({metric.name, metric.value});
  fields.insert(fields.end(), {{"lr", started.lr},
                               {"grad_norm", result.grad_norm},
                               {"clipped", result.clipped},
                               {task_.sample_words().many, result.sample_size},
                               {"seconds", started.seconds},
                               {"memory", stats.peak_rss_bytes}});
  if (throughput_->matmul_rate() > 0.0)
    fields.push_back({"mfu", throughput_->utilisation(result.sample_size, started.seconds)});
  if (dtype_ == DType::f16) fields.push_back({"loss_scale", result.loss_scale});
  if (dtype_ == DType::f16 || config_.train.non_finite == NonFinite::skip) {
    fields.push_back({"skipped", result.skipped});
    fields.push_back({"skipped_updates", state_.skipped_updates});
  }
  write_record(std::move(fields));
  if (!result.skipped) look_for_spike(started.update, loss, result.grad_norm);
}

void Trainer::report_skipped(int64_t update, const UpdateResult& result) {
  if (dtype_ == DType::f16)
    return progress_->message(fmt::format("update {} skipped: its gradient overflows fp16; the loss scale is now {}",
                                          update, result.loss_scale));
  spdlog::warn(
      "update {} skipped: it is not finite (loss {}, norm of the gradient {}); {} in a row, {} of this run; "
      "more than {} in a row end it (train.non_finite_limit)",
      update, std::abs(result.loss), std::abs(result.grad_norm), result.in_a_row, state_.skipped_updates,
      config_.train.non_finite_limit);
}

/// True when the module is better than ever.
bool Trainer::record_validation() {
  const Evaluation& found = validate_now();
  Metric best = found.decisive();
  if (!found.finite()) best.value = std::numeric_limits<double>::quiet_NaN();
  const bool improved = state_.record(best);
  if (!found.finite() && comm_.is_root())
    spdlog::warn("the validation after update {} is not finite ({}): this state is neither the best nor saved",
                 state_.update, found.text());
  if (!progress_) return improved;
  best.value = state_.best;
  progress_->message(fmt::format("epoch {} | update {} | valid {} | best {}", task_.epoch(), state_.update,
                                 found.text(), std::isfinite(best.value) ? text_of(best) : "none"));
  std::vector<MetricField> fields{{"kind", std::string("valid")}, {"update", state_.update}, {"epoch", task_.epoch()}};
  for (const Metric& metric : found.metrics) fields.push_back({metric.name, metric.value});
  fields.push_back({"best_" + found.decisive().name, state_.best});
  fields.push_back({task_.sample_words().many, found.sample_size});
  fields.push_back({"training_seconds", state_.training_seconds});
  fields.push_back({"seconds", validation_seconds_});
  write_record(std::move(fields));
  return improved;
}

std::string Trainer::divergence_advice_now() {
  try {
    folder_->wait();
  } catch (const Error& error) {
    spdlog::error("{}", error.what());
  }
  return divergence_advice(resumable_checkpoints(folder_->dir()), state_.update);
}

void Trainer::check_result() {
  const Evaluation& found = validate_now();
  if (found.finite()) return;
  const std::string advice = comm_.broadcast_text(folder_ ? divergence_advice_now() : "");
  fail("the model is of no use after update {}: its validation is not finite ({}). {}", state_.update, found.text(),
       advice);
}

void Trainer::explain(const Diverged& diverged) {
  const bool before_last = diverged.update() + 1 < state_.update;
  noise_->set_rates(diverged.update());
  std::string where = "the micro-batches are gone";
  if (!before_last || task_.step_back())
    where = locate_divergence(diverged, before_last ? last_count_ : count_, micro_batches_of(diverged.update()),
                              *updates_, comm_);
  const std::string advice = comm_.broadcast_text(folder_ ? divergence_advice_now() : "");
  fail("{}. {}. The run has diverged: {}", diverged.what(), where, advice);
}

}  // namespace qn
