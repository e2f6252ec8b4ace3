#include "train/trainer.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <numbers>

#include "core/profiler.h"
#include "core/text.h"
#include "ops/host_access.h"
#include "train/broadcast_state.h"
#include "train/device.h"

namespace qn {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

LossScaling loss_scaling(const TrainConfig& train) {
  const int64_t window = train.loss_scale_window > 0 ? train.loss_scale_window : (1 << 14) / train.micro_batches;
  return {.initial = train.loss_scale, .growth_interval = std::max<int64_t>(1, window)};
}

}  // namespace

Trainer::Trainer(const RunConfig& config, Communicator& comm, TrainerOptions options)
    : config_(config),
      comm_(comm),
      options_(std::move(options)),
      kernels_(options_.kernels != nullptr ? *options_.kernels : cpu_kernels()),
      dtype_(activation_type(config.train.precision, kernels_, comm)),
      corpus_(config.data, static_cast<uint64_t>(config.seed)),
      model_(make_language_model(config.model, corpus_.dictionary().size(), config.data.tokens_per_sample)) {
  set_product_precision(config.train.precision, kernels_);
  const auto seed = static_cast<uint64_t>(config.seed);
  QN_CHECK(options_.quantize || config.train.max_updates > 0 || config.train.max_epochs > 0 ||
               config.train.patience > 0 || config.train.stop_min_lr >= 0.0 || config.train.stop_time_hours > 0.0,
           "this run would never end: set train.max_updates, max_epochs, patience, stop_min_lr or stop_time_hours");
  corpus_.prepare_training(model_->max_positions());
  original_parameters_ = model_->parameters().elements();
  model_->parameters().allocate(DType::f32, kernels_);
  apply_noise(model_->weights(), config.quant_noise);
  if (options_.quantize) ipq_.emplace(config.ipq, *model_, comm, seed, token_counts());
  if (config.comm.nccl) device_comm_ = device_communicator(kernels_, comm);
  if (comm.is_root()) folder_.emplace(config.checkpoint);

  StateDict state;
  const bool resuming = find_checkpoint(state);
  if (!resuming) initialize_weights();
  if (resuming && ipq_) ipq_->load(state);
  optimizer_ = make_optimizer(config.optimizer, model_->parameters(), config.schedule.lr);
  updates_.emplace(*model_, kernels_, comm,
                   UpdateOptions{.seed = seed,
                                 .dtype = dtype_,
                                 .clip_norm = config.optimizer.clip_norm,
                                 .bucket_bytes = static_cast<size_t>(config.comm.bucket_mib * 1024 * 1024),
                                 .overlap = config.comm.overlap.value_or(device_comm_ != nullptr),
                                 .skip_missing = config.optimizer.missing_gradient == MissingGradient::skip,
                                 .loss_scaling = loss_scaling(config.train),
                                 .graphs = use_graphs(config.train, comm),
                                 .device = device_comm_.get()});
  if (resuming) resume(state);
  throughput_.emplace(training_work(), config_.train, kernels_, dtype_, comm);
  if (comm.is_root()) {
    metrics_.emplace(folder_->dir() / "metrics.jsonl", resuming);
    if (resuming) metrics_->truncate_after(update_);
    ProgressOptions progress;
    progress.log_interval = config.train.log_every_updates;
    progress.full_speed = throughput_->matmul_rate() / throughput_->flops_per_token();
    progress_.emplace(std::move(progress));
  }
  log_start();
}

PassWork Trainer::training_work() {
  constexpr int64_t kExamples = 8;
  Batch batch;
  return measure_work(*model_, kernels_, dtype_, kExamples, [&](int64_t i) {
    batch = corpus_.training_example(i, kExamples);
    return MicroBatch{view_of(batch), batch.tokens};
  });
}

std::vector<int64_t> Trainer::token_counts() const {
  if (config_.ipq.frequency_exponent == 0.0) return {};
  return corpus_.train().stream().counts(corpus_.dictionary().size());
}

bool Trainer::find_checkpoint(StateDict& state) {
  const ProfileScope phase(Phase::checkpoint);
  int64_t found = 0;
  if (comm_.is_root() && options_.resume)
    if (auto newest = folder_->newest()) {
      spdlog::info("resuming from {}", newest->path.string());
      state = std::move(newest->state);
      found = 1;
    }
  found = comm_.all_reduce_sum_value(found);
  if (found > 0) broadcast_state(comm_, state);
  return found > 0;
}

void Trainer::log_start() const {
  const ParameterStore& store = model_->parameters();
  spdlog::info("model: {} parameters ({} fp32) in {} tensors, vocabulary {}; computing in {}",
               group_digits(store.elements()), format_bytes(static_cast<uint64_t>(store.elements()) * 4),
               store.all().size(), group_digits(corpus_.dictionary().size()),
               precision_text(config_.train.precision, dtype_, kernels_));
  spdlog::info("data: {} training tokens in {} blocks, {} updates per epoch of {} micro-batches; {} rank{}",
               group_digits(corpus_.train().stream().total_tokens()), group_digits(corpus_.train().size()),
               group_digits(corpus_.sampler().updates_per_epoch(config_.train.micro_batches)),
               config_.train.micro_batches, comm_.size(), comm_.size() == 1 ? "" : "s");
  spdlog::info("{}", throughput_->text());
  if (config_.train.micro_batches % comm_.size() != 0)
    spdlog::warn("train.micro_batches = {} is no multiple of the {} ranks: some ranks wait in every update",
                 config_.train.micro_batches, comm_.size());
}

void Trainer::initialize_weights() {
  ParameterStore& store = model_->parameters();
  const std::string& source = config_.checkpoint.init_from;
  QN_CHECK(!options_.quantize || !source.empty(),
           "quantize needs the trained model: --from CHECKPOINT (or checkpoint.init_from)");
  store.initialize(static_cast<uint64_t>(config_.seed));
  if (!source.empty() && comm_.is_root()) {
    load_parameters(load_state(source));
    spdlog::info("weights from {}", source);
  }
  if (device_comm_ != nullptr) {
    device_comm_->start_broadcast(store.values());
    return device_comm_->join();
  }
  edit_on_host(kernels_, store.values(), [&](const Tensor& host) {
    comm_.broadcast({static_cast<std::byte*>(host.data), host.bytes()});
  });
}

void Trainer::load_parameters(const StateDict& state) {
  const std::string hash = hex64(corpus_.dictionary().hash());
  QN_CHECK(
      state.text("dictionary_hash") == hash,
      "the checkpoint was made with another dictionary (hash {}, {} has {}): use the data folder it was trained on",
      state.text("dictionary_hash"), config_.data.path, hash);
  qn::load_parameters(model_->parameters(), state);
}

void Trainer::resume(const StateDict& state) {
  if (comm_.is_root())
    for (const std::string& line : diff_config(state.text("config"), dump_config(config_)))
      spdlog::warn("changed since the checkpoint: {}", line);
  load_parameters(state);
  optimizer_->load(model_->parameters(), state);
  updates_->load(state);
  QN_CHECK(
      state.text("data_fingerprint") == hex64(corpus_.sampler().fingerprint()),
      "the training batches differ from those of the checkpoint (other data, data.* options or seed): restore them, "
      "or start a new run from these weights with checkpoint.init_from and another checkpoint.dir");
  corpus_.sampler().restore({.epoch = state.integer("sampler/epoch"),
                             .next = state.integer("sampler/next"),
                             .samples = state.integer("sampler/samples")});
  update_ = state.integer("update");
  validations_ = state.integer("validations");
  bad_validations_ = state.integer("bad_validations");
  best_loss_ = state.real("best_loss");
  training_seconds_ = state.real("training_seconds");
}

StateDict Trainer::capture() {
  StateDict state;
  save_parameters(model_->parameters(), state);
  optimizer_->save(model_->parameters(), state);
  updates_->save(state);
  if (ipq_) ipq_->save(state);
  const SamplerState& sampler = corpus_.sampler().state();
  state.ints["sampler/epoch"] = sampler.epoch;
  state.ints["sampler/next"] = sampler.next;
  state.ints["sampler/samples"] = sampler.samples;
  state.ints["vocabulary"] = corpus_.dictionary().size();
  state.ints["update"] = update_;
  state.ints["validations"] = validations_;
  state.ints["bad_validations"] = bad_validations_;
  state.floats["best_loss"] = best_loss_;
  state.floats["training_seconds"] = training_seconds_;
  state.texts["config"] = dump_config(config_);
  state.texts["dictionary_hash"] = hex64(corpus_.dictionary().hash());
  state.texts["data_fingerprint"] = hex64(corpus_.sampler().fingerprint());
  return state;
}

void Trainer::save(const SaveReason& reason) {
  drain();
  const ProfileScope phase(Phase::checkpoint, update_);
  if (folder_) folder_->save(capture(), corpus_.sampler().state().epoch, update_, reason);
}

int64_t Trainer::max_updates() const {
  return ipq_ ? ipq_->stages() * config_.ipq.updates_per_stage : config_.train.max_updates;
}

double Trainer::current_lr() const {
  if (ipq_ && config_.ipq.restart_schedule)
    return learning_rate(config_.schedule, update_ - (ipq_->stages_done() - 1) * config_.ipq.updates_per_stage,
                         config_.ipq.updates_per_stage);
  return learning_rate(config_.schedule, update_, max_updates());
}

bool Trainer::finished() const {
  const TrainConfig& t = config_.train;
  if (ipq_) return ipq_->stages_done() == ipq_->stages() && update_ >= max_updates();
  const bool epoch_boundary = corpus_.sampler().end_of_epoch();
  if (t.max_updates > 0 && update_ >= t.max_updates) return true;
  if (t.max_epochs > 0 && epoch_boundary && corpus_.sampler().state().epoch >= t.max_epochs) return true;
  if (t.stop_time_hours > 0.0 && training_seconds_ >= t.stop_time_hours * 3600.0) return true;
  if (t.patience > 0 && bad_validations_ >= t.patience) return true;
  return t.stop_min_lr >= 0.0 && epoch_boundary && current_lr() <= t.stop_min_lr;
}

bool Trainer::agreed_stop() {
  double stop = options_.stop_requested && options_.stop_requested() ? 1.0 : 0.0;
  if (comm_.size() > 1) {
    const ProfileScope phase(Phase::all_reduce);
    comm_.all_reduce_max({&stop, 1});
    // The time limit as rank 0 sees it, so that all ranks end in the same update.
    comm_.broadcast(std::as_writable_bytes(std::span(&training_seconds_, 1)));
  }
  return stop > 0.0;
}

bool Trainer::run_due_stages() {
  while (ipq_ && ipq_->stages_done() < ipq_->stages() &&
         update_ >= ipq_->stages_done() * config_.ipq.updates_per_stage) {
    drain();
    const int64_t every = config_.ipq.save_every_kmeans_iterations;
    const auto report = ipq_->run_stage([&](int64_t iteration) {
      const bool stop = agreed_stop();
      if (stop || (every > 0 && iteration % every == 0)) save({});
      return !stop;
    });
    if (!report) return false;
    optimizer_ = make_optimizer(config_.optimizer, model_->parameters(), config_.schedule.lr);
    updates_->forget_skipped();
    score_.reset();
    const Score score = validate_now();
    spdlog::info(
        "stage {} of {}: {} weights, relative error {:.4f}, {} empty clusters filled, k-means {:.1f} s; valid "
        "ppl {:.2f}",
        report->stage + 1, ipq_->stages(), report->weights, report->relative_error, report->splits, report->seconds,
        score.perplexity());
    if (metrics_)
      metrics_->write({{"kind", std::string("stage")},
                       {"update", update_},
                       {"stage", report->stage + 1},
                       {"weights", report->weights},
                       {"relative_error", report->relative_error},
                       {"valid_ppl", score.perplexity()},
                       {"seconds", report->seconds}});
    save({});
  }
  return true;
}

Outcome Trainer::run() {
  const Outcome outcome = run_to_end();
  drain();
  {
    const ProfileScope phase(Phase::checkpoint);
    if (folder_) folder_->wait();
    comm_.barrier();
  }
  if (progress_) progress_->finish();
  return outcome;
}

Outcome Trainer::run_to_end() {
  if (!run_due_stages()) return Outcome::stopped;
  while (!finished()) {
    one_update();
    const bool stop = agreed_stop();
    after_update();
    if (stop && !finished()) {
      save({});
      return Outcome::stopped;
    }
    if (!run_due_stages()) return Outcome::stopped;
  }
  return Outcome::finished;
}

void Trainer::one_update() {
  const ProfileScope phase(Phase::update, update_ + 1);
  const auto start = std::chrono::steady_clock::now();
  const auto groups = corpus_.sampler().next_update(config_.train.micro_batches);
  const double lr = current_lr();
  Batch batch;
  const auto fetch = [&](int64_t i) {
    const ProfileScope reading(Phase::data, i);
    batch = corpus_.train().collate(groups[static_cast<size_t>(i)]);
    return MicroBatch{view_of(batch), batch.tokens};
  };
  updates_->start(update_, static_cast<int64_t>(groups.size()), fetch, *optimizer_, lr);
  unreported_.push_back({++update_, corpus_.sampler().state().epoch, lr, 0.0});
  score_.reset();
  // A device computes this update while the host prepares the next.
  const size_t under_way = on_host(kernels_) ? 0 : 1;
  std::vector<UpdateResult> finished;
  while (updates_->pending() > under_way) finished.push_back(updates_->finish());
  unreported_.back().seconds = seconds_since(start);
  training_seconds_ += unreported_.back().seconds;
  for (const UpdateResult& result : finished) report(result);
}

void Trainer::drain() {
  while (updates_->pending() > 0) report(updates_->finish());
}

void Trainer::report(const UpdateResult& result) {
  const Started started = unreported_.front();
  unreported_.pop_front();
  if (!progress_) return;
  if (result.skipped)
    progress_->message(fmt::format("update {} skipped: its gradient overflows fp16; the loss scale is now {}",
                                   started.update, result.loss_scale));
  clipped_ += result.clipped ? 1 : 0;
  if (++reported_ == 1) spdlog::info("{}", memory_text(model_->parameters(), *optimizer_, updates_->arena(), kernels_));
  const double loss = result.loss / static_cast<double>(result.tokens) / std::numbers::ln2;
  progress_->report({.update = started.update,
                     .max_updates = max_updates(),
                     .epoch = started.epoch,
                     .tokens = result.tokens,
                     .loss_base2 = loss,
                     .lr = started.lr,
                     .grad_norm = result.grad_norm,
                     .clip_share = static_cast<double>(clipped_) / static_cast<double>(reported_),
                     .seconds = started.seconds,
                     .peak_rss_bytes = peak_rss_bytes()});
  std::vector<MetricField> fields{{"kind", std::string("train")},  {"update", started.update},
                                  {"epoch", started.epoch},        {"loss", loss},
                                  {"ppl", std::exp2(loss)},        {"lr", started.lr},
                                  {"grad_norm", result.grad_norm}, {"clipped", result.clipped},
                                  {"tokens", result.tokens},       {"seconds", started.seconds}};
  if (throughput_->matmul_rate() > 0.0)
    fields.push_back({"mfu", throughput_->utilisation(result.tokens, started.seconds)});
  if (dtype_ == DType::f16) {
    fields.push_back({"loss_scale", result.loss_scale});
    fields.push_back({"skipped", result.skipped});
  }
  metrics_->write(fields);
}

Score Trainer::validate_now() {
  drain();
  if (!score_) score_ = validate(*model_, kernels_, comm_, corpus_.valid(), corpus_.valid_batches(), dtype_);
  return *score_;
}

void Trainer::round_weights(const PackedStorage& storage) {
  round_to_storage(*model_, storage);
  score_.reset();
}

void Trainer::record_validation(const Score& score, bool& improved) {
  improved = validations_ == 0 || score.base2() < best_loss_;
  ++validations_;
  if (improved) best_loss_ = score.base2();
  bad_validations_ = improved ? 0 : bad_validations_ + 1;
  if (!progress_) return;
  progress_->message(fmt::format("epoch {} | update {} | valid loss {:.4f} | ppl {:.2f} | best ppl {:.2f}",
                                 corpus_.sampler().state().epoch, update_, score.base2(), score.perplexity(),
                                 std::exp2(best_loss_)));
  metrics_->write({{"kind", std::string("valid")},
                   {"update", update_},
                   {"epoch", corpus_.sampler().state().epoch},
                   {"loss", score.base2()},
                   {"ppl", score.perplexity()},
                   {"best_loss", best_loss_},
                   {"tokens", score.tokens},
                   {"training_seconds", training_seconds_}});
}

void Trainer::after_update() {
  const TrainConfig& t = config_.train;
  const CheckpointConfig& c = config_.checkpoint;
  const int64_t epoch = corpus_.sampler().state().epoch;
  const bool epoch_end = corpus_.sampler().end_of_epoch(), stopping = finished();
  const auto every = [](int64_t n, int64_t interval) { return interval > 0 && n % interval == 0; };
  bool improved = false;
  if (stopping || (epoch_end && every(epoch, t.validate_every_epochs)) || every(update_, t.validate_every_updates))
    record_validation(validate_now(), improved);
  const SaveReason reason{.epoch_end = epoch_end && every(epoch, c.save_every_epochs),
                          .interval = every(update_, c.save_every_updates),
                          .best = improved};
  if (stopping || reason.epoch_end || reason.interval || reason.best || finished()) save(reason);
}

}  // namespace qn
