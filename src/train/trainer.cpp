#include "train/trainer.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "compress/storable.h"
#include "core/fault_point.h"
#include "core/profiler.h"
#include "core/text.h"
#include "ops/host_access.h"
#include "train/broadcast_state.h"
#include "train/device.h"
#include "train/divergence.h"
#include "train/final_save.h"
#include "train/rank_agreement.h"
#include "train/run_record.h"
#include "train/shown_work.h"
#include "train/stage_starts.h"
#include "train/start_checks.h"

namespace qn {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

LossScaling loss_scaling(const TrainConfig& train) {
  const int64_t window = train.loss_scale_window > 0 ? train.loss_scale_window : (1 << 14) / train.micro_batches;
  return {.initial = train.loss_scale, .growth_interval = std::max<int64_t>(1, window)};
}

int64_t skip_limit(const TrainConfig& train) {
  return train.non_finite == NonFinite::skip ? train.non_finite_limit : 0;
}

/// Some of its weights are; those of a run whose first stage is under way are still dense.
bool quantized(const StateDict& state) {
  const auto stages = state.ints.find("ipq/stages_done");
  return stages != state.ints.end() && stages->second > 0;
}

}  // namespace

int64_t total_updates(const TrainConfig& config, const Task& task) {
  return config.max_updates > 0 ? config.max_updates : config.max_epochs * task.updates_per_epoch(config.micro_batches);
}

Trainer::Trainer(const TrainerConfig& config, std::string config_text, Task& task, Communicator& comm,
                 TrainerOptions options)
    : config_(options.quantize ? finetuning_config(config) : config),
      config_text_(std::move(config_text)),
      task_(task),
      module_(task.module()),
      comm_(comm),
      options_(std::move(options)),
      kernels_(options_.kernels != nullptr ? *options_.kernels : cpu_kernels()),
      dtype_(activation_type(config.train.precision, kernels_, comm)),
      spikes_(config_.train.spike_deviations) {
  check_same_program(comm_, config_text_);
  check_run_ends(config_, options_.quantize);
  set_product_precision(config_.train.precision, kernels_);
  // First: another process may have it.
  if (comm_.is_root() && !options_.dry) folder_.emplace(config_.checkpoint);
  task_.open_training();
  check_same_task(comm_, task_);
  config_.schedule = in_updates(config_.schedule, task_.updates_per_epoch(config_.train.micro_batches));
  if (options_.quantize && !config_.ipq.teacher.empty())
    task_.learn_from(config_.ipq.teacher, config_.ipq.teacher_weight, kernels_);
  if (options_.quantize && comm_.is_root()) teacher_ = teacher_contents(config_.ipq);
  prepare_module();
  start_or_resume();
  log_start();
}

void Trainer::prepare_module() {
  count_parameters();
  module_.allocate(DType::f32, kernels_);
  if (config_.comm.nccl) device_comm_ = device_communicator(kernels_, comm_);
}

/// As the checkpoint's plan says, if there is one.
void Trainer::plan_weights(const StateDict& state) {
  const IpqConfig* ipq = options_.quantize ? &config_.ipq : nullptr;
  plan_ = state.texts.contains("plan")
              ? resume_run_plan(state.text("plan"), module_, config_.quant_noise, ipq, config_.ipq)
              : make_run_plan(module_, config_.quant_noise, ipq, config_.ipq);
  apply_noise(module_.weights(), plan_);
  quantize_activations(module_, plan_.activations, plan_.round_activations);
  module_.buffers().allocate(DType::f32, kernels_);
  module_.refresh();
  const auto importance = [this](const Weight& weight) {
    return task_.row_importance(weight, config_.ipq.frequency_exponent);
  };
  if (options_.quantize) {
    module_.statistics().freeze(config_.ipq.freeze_norms);
    finetuning_ = Finetuning(config_.ipq, plan_, config_.optimizer, config_.schedule);
    check_stage_starts(finetuning_, plan_.stages, config_.ipq, state);
    check_latent_values(plan_, config_.ipq, state);
    for (const std::string& line : options_without_effect(config_.ipq, plan_, finetuning_)) spdlog::warn("{}", line);
    stage_model_.emplace(module_, config_.ipq.average_decay,
                         config_.ipq.keep_best.value_or(!config_.ipq.updates_per_stage));
    ipq_.emplace(config_.ipq, module_, comm_, static_cast<uint64_t>(config_.seed), plan_, importance);
  } else {
    check_noise_schedule(config_.quant_noise, max_updates());
    warn_of_missing_noise(plan_, config_.quant_noise);
  }
  noise_.emplace(module_, comm_, plan_,
                 RunNoiseOptions{.seed = static_cast<uint64_t>(config_.seed),
                                 .codebook_updates = config_.quant_noise.codebook_updates,
                                 .refresh_iterations = config_.quant_noise.codebook_iterations,
                                 .total_updates = max_updates(),
                                 .after_training = options_.quantize},
                 importance);
}

/// The order matters: codes decide which parameters there are, parameters what the optimizer holds.
void Trainer::start_or_resume() {
  StateDict state;
  const bool resuming = find_checkpoint(state);
  if (resuming) task_.check_weights(state);
  plan_weights(state);
  check_schedule();
  const bool teacher_alone = !config_.ipq.teacher.empty() && config_.ipq.teacher_weight == 1.0;
  if (!ipq_ || (finetuning_.total() > 0 && !teacher_alone)) task_.check_targets();
  if (!resuming) initialize_weights();
  if (resuming && ipq_) ipq_->load(state);
  renew_optimizer();
  make_update_runner();
  if (resuming) resume(state);
  begin_average(state);
  start_reporting(resuming);
}

void Trainer::make_update_runner() {
  updates_.emplace(module_, kernels_, comm_,
                   UpdateOptions{.seed = static_cast<uint64_t>(config_.seed),
                                 .dtype = dtype_,
                                 .clip_norm = config_.optimizer.clip_norm,
                                 .bucket_bytes = config_.comm.bucket_bytes(device_comm_ != nullptr),
                                 .overlap = !config_.train.synchronize_norms &&
                                            config_.comm.overlap.value_or(device_comm_ != nullptr),
                                 .synchronize_norms = config_.train.synchronize_norms,
                                 .skip_missing = config_.optimizer.missing_gradient == MissingGradient::skip,
                                 .loss_scaling = loss_scaling(config_.train),
                                 .skip_limit = skip_limit(config_.train),
                                 .graphs = use_graphs(config_.train, comm_),
                                 .abandon = options_.abandon_update,
                                 .before_step = [this] { finish_copies(); },
                                 .device = device_comm_.get()});
}

bool Trainer::find_checkpoint(StateDict& state) {
  const ProfileScope phase(Phase::checkpoint);
  int64_t found = 0;
  if (comm_.is_root() && options_.resume)
    if (auto newest = newest_checkpoint(config_.checkpoint.dir)) {
      spdlog::info("resuming from {}", newest->path.string());
      check_same_run(newest->state, config_.checkpoint, options_.quantize);
      if (folder_) folder_->continue_run(*newest);
      state = std::move(newest->state);
      found = 1;
    }
  found = comm_.all_reduce_sum_value(found);
  if (found > 0) broadcast_state(comm_, state);
  return found > 0;
}

void Trainer::initialize_weights() {
  ParameterStore& store = module_.parameters();
  const std::string& source = config_.checkpoint.init_from;
  QN_CHECK_USAGE(!options_.quantize || !source.empty(),
                 "quantize needs the trained model: --from CHECKPOINT (or checkpoint.init_from)");
  store.initialize(static_cast<uint64_t>(config_.seed));
  StateDict noise;
  if (!source.empty() && comm_.is_root()) {
    StateDict state = load_state(source);
    QN_CHECK(
        !quantized(state),
        "{} is a checkpoint of a quantization run: its weights are codes already. Name the checkpoint of the dense "
        "model that this run started from; to go on with the run itself, set checkpoint.dir to its folder",
        source);
    const std::string& keep = config_.checkpoint.layers_to_keep;
    if (!keep.empty()) task_.prune(state, keep);
    task_.check_weights(state);
    options_.quantize ? task_.adapt_whole_weights(state) : task_.adapt_weights(state);
    load_module(module_, state);
    if (options_.quantize) forget_other_ranges(state);
    source_ = source_identity(source);
    source_layers_ = keep;
    if (options_.quantize) check_storable(module_, plan_);
    spdlog::info("weights from {}{}{}", source, holds_averages(state) ? ", moving averages" : "",
                 keep.empty() ? "" : fmt::format(", layers kept: {}", keep));
    noise = RunNoise::codebooks_of(std::move(state));
  }
  if (ipq_) {
    broadcast_state(comm_, noise);
    ipq_->start_from_noise(noise);
  }
  const auto broadcast = [&](const Tensor& tensor) {
    edit_on_host(kernels_, tensor, [&](const Tensor& host) {
      comm_.broadcast({static_cast<std::byte*>(host.data), host.bytes()});
    });
  };
  for (const auto& buffer : module_.buffers().all()) broadcast(buffer->value.view());
  module_.refresh();
  if (device_comm_ == nullptr) return broadcast(store.values());
  device_comm_->start_broadcast(store.values());
  device_comm_->join();
}

/// Ranges that training found in another way than the one that is asked for are found anew.
void Trainer::forget_other_ranges(const StateDict& source) {
  if (!source.texts.contains("plan")) return;
  const QuantizationPlan was = plan_from_text(source.text("plan"), "the plan of " + config_.checkpoint.init_from);
  if (!ranges_differ(was.activations, plan_.activations)) return;
  spdlog::info("activations: training found its ranges in another way or for other bits; calibrating anew");
  for (const ActivationPlan& place : plan_.activations)
    kernels_.fill(module_.buffers().find(range_name(place.name))->value.view(), 0.0);
}

void Trainer::resume(const StateDict& state) {
  if (comm_.is_root()) warn_of_changes(state, config_text_);
  check_teacher(state);
  restore(state);
  task_.load(state);
  state_.load(state);
  if (stage_model_) stage_model_->load(state);
  if (state.texts.contains("source")) source_ = state.text("source");
  if (state.texts.contains("source_layers")) source_layers_ = state.text("source_layers");
}

/// What is trained and how, but not where the run is in its data.
void Trainer::restore(const StateDict& state) {
  load_module(module_, state);
  check_optimizer(current_optimizer(), state);
  optimizer_->load(module_.parameters(), state);
  updates_->load(state);
  noise_->load(state);
  spikes_.load(state);
}

/// The parameters of a checkpoint with averages are these; training goes on with those beside them, averages or not.
void Trainer::begin_average(const StateDict& state) {
  const EmaConfig& config = config_.train.ema;
  if (options_.quantize || !(config.on() || holds_averages(state))) return;
  ema_.emplace(module_);
  if (holds_averages(state)) {
    ema_->load(kTrained, state);
    ema_->exchange();
  }
  if (!config.on()) ema_.reset();
}

ModelAverage* Trainer::average() {
  if (stage_model_) return stage_model_->average();
  return ema_ ? &*ema_ : nullptr;
}

/// Of the whole run; 0 where that is not known beforehand.
int64_t Trainer::max_updates() const { return ipq_ ? finetuning_.total() : total_updates(config_.train, task_); }

void Trainer::check_schedule() const {
  if (ipq_ && finetuning_.total() == 0) return;
  qn::check_schedule(config_.schedule, max_updates());
}

bool Trainer::finished() const {
  const TrainConfig& t = config_.train;
  if (ipq_) return ipq_->stages_done() == ipq_->stages() && state_.update >= max_updates();
  const bool epoch_boundary = task_.end_of_epoch();
  if (t.max_updates > 0 && state_.update >= t.max_updates) return true;
  if (t.max_epochs > 0 && epoch_boundary && task_.epoch() >= t.max_epochs) return true;
  if (t.stop_time_hours > 0.0 && state_.training_seconds >= t.stop_time_hours * 3600.0) return true;
  if (t.patience > 0 && state_.bad_validations >= t.patience) return true;
  return t.stop_min_lr >= 0.0 && epoch_boundary && current_lr() <= t.stop_min_lr;
}

Outcome Trainer::run() {
  try {
    const Outcome outcome = run_and_save();
    if (progress_) progress_->finish();
    finish_status(outcome);
    return outcome;
  } catch (const std::exception& error) {
    write_end("failed", error.what());
    throw;
  }
}

Outcome Trainer::run_and_save() {
  Outcome outcome = Outcome::stopped;
  try {
    outcome = run_to_end();
    drain();
  } catch (const Diverged& diverged) {
    explain(diverged);
  }
  if (outcome == Outcome::finished) check_result();
  if (options_.quantize && outcome == Outcome::finished) calibrate();
  const ProfileScope phase(Phase::checkpoint);
  const ShownWork shown("saving", nullptr, status());
  finish_saving();
  return outcome;
}

Outcome Trainer::run_to_end() {
  if (status_) status_->enter(options_.quantize ? "finetuning" : "training");
  go_on_with_last_stage();
  if (!run_due_stages()) return Outcome::stopped;
  while (!finished()) {
    if (!one_update()) {
      save({});
      return Outcome::stopped;
    }
    if (ipq_) after_stage_update();
    const bool stop = agreed_stop();
    check_ranks();
    if (!spiked_ || !roll_back()) after_update();
    if (stop && !finished()) {
      save({});
      return Outcome::stopped;
    }
    if (!run_due_stages()) return Outcome::stopped;
  }
  return Outcome::finished;
}

/// False when it was stopped inside a k-means.
bool Trainer::begin_noise() {
  noise_->set_rates(state_.update);
  if (!noise_->refresh_due(state_.update)) return true;
  drain();  // the weights are those that the update will see
  return noise_->refresh(state_.update, [this] { return !agreed_stop(); });
}

/// False when it was given up: then the run is where it was.
bool Trainer::one_update() {
  const ProfileScope phase(Phase::update, state_.update + 1);
  const auto start = std::chrono::steady_clock::now();
  if (!begin_noise()) return false;
  const int64_t count = task_.next_update(config_.train.micro_batches);
  const double lr = current_lr();
  last_count_ = std::exchange(count_, count);
  ActivationObserver* observer = module_.activations().observer();
  if (!updates_->start(state_.update, count, micro_batches_of(state_.update), *optimizer_, lr)) {
    task_.put_back_update();
    if (observer != nullptr) observer->drop_update(kernels_);
    return false;
  }
  slow_ranks_.add(updates_->busy_seconds(), (count - comm_.rank() + comm_.size() - 1) / comm_.size());
  unreported_.push_back({++state_.update, task_.epoch(), lr, 0.0});
  evaluation_.reset();
  // A device computes this update while the host prepares the next, unless the host needs to know what came out.
  const size_t under_way = on_host(kernels_) || observer != nullptr || rolls_back() ? 0 : 1;
  std::vector<UpdateResult> finished;
  while (updates_->pending() > under_way) finished.push_back(updates_->finish());
  unreported_.back().seconds = seconds_since(start);
  state_.training_seconds += unreported_.back().seconds;
  for (const UpdateResult& result : finished) report(result);
  if (observer != nullptr && finished.back().skipped) observer->drop_update(kernels_);
  if (observer != nullptr && !finished.back().skipped) observer->end_update(kernels_, across_ranks());
  if (ema_) {
    const ProfileScope of_average(Phase::optimizer);
    ema_->add(config_.train.ema.decay_at(state_.update));
  }
  if (on_host(kernels_) && state_.update % config_.train.log_every_updates == 0) slow_ranks_.compare();
  fault_point("train.update");
  return true;
}

std::function<MicroBatch(int64_t)> Trainer::micro_batches_of(int64_t update) {
  return [this, update](int64_t i) {
    return task_.micro_batch(i, {.seed = static_cast<uint64_t>(config_.seed),
                                 .purpose = Purpose::data,
                                 .update = static_cast<uint32_t>(update),
                                 .micro_batch = static_cast<uint32_t>(i)});
  };
}

AcrossRanks Trainer::across_ranks() {
  return {.max = [this](std::span<double> values) { comm_.all_reduce_max(values); },
          .sum = [this](std::span<int64_t> values) { comm_.all_reduce_sum(values); }};
}

void Trainer::drain() {
  while (updates_->pending() > 0) report(updates_->finish());
}

const Evaluation& Trainer::validate_now() {
  drain();
  if (evaluation_) return *evaluation_;
  const AveragesInPlace averages(average());
  const ShownWork shown("validating", progress(), status());
  const auto start = std::chrono::steady_clock::now();
  evaluation_ = task_.evaluate(kernels_, comm_, dtype_);
  validation_seconds_ = seconds_since(start);
  if (stage_model_) stage_model_->record(*evaluation_, state_.update);
  return *evaluation_;
}

void Trainer::round_weights(const PackedStorage& storage) {
  // Weights that were finetuned by frozen averages are made for these.
  const bool settled = config_.ipq.freeze_norms && finetuning_.total() > 0;
  round_to_storage(module_, storage, [&] {
    if (!settled) measure_norms(plan_.quantized());
  });
  evaluation_.reset();
}

void Trainer::after_update() {
  const TrainConfig& t = config_.train;
  const CheckpointConfig& c = config_.checkpoint;
  const int64_t epoch = task_.epoch();
  const bool epoch_end = task_.end_of_epoch(), stopping = finished(), stage_end = at_stage_end();
  const auto every = [](int64_t n, int64_t interval) { return interval > 0 && n % interval == 0; };
  SaveReason reason{.epoch_end = epoch_end && every(epoch, c.save_every_epochs),
                    .interval = every(state_.update, c.save_every_updates)};
  if (stopping || (stage_end && stage_model_->keeps_best()) || (epoch_end && every(epoch, t.validate_every_epochs)) ||
      every(state_.update, t.validate_every_updates)) {
    reason.best = record_validation();
    if (const Metric decisive = evaluation_->decisive(); state_.enter_best(decisive, c.keep_best))
      reason.among_best = decisive;
  }
  if (stage_end) end_stage();
  // What validation has just shown to be of no use must not take the place of a checkpoint that is.
  if (evaluation_ && !evaluation_->finite()) return;
  if (stopping || reason.any() || save_due_ || finished()) save(reason, !finished());
}

}  // namespace qn
