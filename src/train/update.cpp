#include "train/update.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>

#include "core/fault_point.h"
#include "core/profiler.h"
#include "ops/host_access.h"
#include "train/replay.h"

namespace qn {
namespace {

// Of 3072 positions a band of the vocabulary has some hundreds, give or take a few dozen from batch to batch.
constexpr int64_t kRowMultiple = 256;
constexpr int64_t kStateNumbers = sizeof(UpdateState) / sizeof(double);

}  // namespace

UpdateRunner::UpdateRunner(Module& module, const Kernels& kernels, Communicator& comm, const UpdateOptions& options)
    : module_(module),
      kernels_(kernels),
      comm_(comm),
      options_(options),
      arena_(*kernels.memory),
      tape_(kernels, arena_, options.dtype, {}),
      rank_sums_(kernels, comm, options.device),
      casts_(module.weights(), kernels, options.dtype),
      reducer_(module.parameters(), comm, options.bucket_bytes, options.overlap, options.device),
      state_({kStateNumbers}, DType::f64, *kernels.memory) {
  QN_ASSERT(tape_.parameter_dtype() == module.parameters().dtype());
  if (options.graphs && kernels.graphs != nullptr)
    graphed_.emplace(kernels, arena_, options.dtype, module.parameters());
  UpdateState start;
  if (scaling()) start.loss_scale = options.loss_scaling.initial;
  write_state(start);
}

UpdateState UpdateRunner::read_state() const {
  UpdateState state;
  kernels_.download(&state, state_.view().data, sizeof state);
  return state;
}

void UpdateRunner::write_state(const UpdateState& state) { kernels_.upload(state_.view().data, &state, sizeof state); }

/// Forward and backward of a micro-batch; after the last of this rank, gradients may be on their way to other ranks.
void UpdateRunner::pass(Tape& tape, const MicroBatch& micro, int64_t micro_batch, bool last) {
  {
    const ProfileScope phase(Phase::forward, micro_batch);
    tape.k.add_sum(&state()->loss, micro.losses(tape));
  }
  const ProfileScope phase(Phase::backward, micro_batch);
  if (!last) return tape.backward();
  reducer_.begin(tape);
  tape.backward([&](size_t index) { reducer_.step_done(index); });
}

PassOptions UpdateRunner::pass_options(int64_t update, int64_t micro_batch) const {
  return {.training = true,
          .recording = true,
          .seed = options_.seed,
          .update = static_cast<uint32_t>(update),
          .micro_batch = static_cast<uint32_t>(micro_batch),
          .loss_scale = scaling() ? &state()->loss_scale : nullptr,
          .row_multiple = graphed_ ? kRowMultiple : 1};
}

/// Whoever waits in a sum for a rank without a micro-batch waits forever.
const SumOverRanks* UpdateRunner::ranks_of(int64_t micro_batch, int64_t count) const {
  const bool all_ranks = (micro_batch / comm_.size() + 1) * comm_.size() <= count;
  return options_.synchronize_norms && comm_.size() > 1 && all_ranks ? &rank_sums_ : nullptr;
}

/// This rank's sample size; nothing when it was told to abandon the update.
std::optional<int64_t> UpdateRunner::accumulate(int64_t update, int64_t count,
                                                const std::function<MicroBatch(int64_t)>& fetch) {
  module_.parameters().begin_gradients();
  for (const auto& weight : module_.weights().all()) weight->representation().begin_update(kernels_, update);
  ActivationObserver* observer = module_.activations().observer();
  const bool host_reads = observer != nullptr && observer->begin_update(update);
  const KeptCasts::Scope kept = casts_.begin();
  kernels_.fill(view_of(&state()->loss, {1}), 0.0);
  if (!module_.statistics().empty()) kernels_.fill(module_.statistics().sums(), 0.0);
  int64_t sample_size = 0;
  for (int64_t i = comm_.rank(); i < count; i += comm_.size()) {
    if (options_.abandon && !options_.synchronize_norms && options_.abandon()) return std::nullopt;
    fault_point("train.micro_batch");
    const MicroBatch micro = fetch(i);
    sample_size += micro.sample_size;
    const bool last = i + comm_.size() >= count;
    PassOptions options = pass_options(update, i);
    options.ranks = ranks_of(i, count);
    if (graphed_ && !host_reads && !micro.host_reads && !(last && reducer_.overlaps())) {
      graphed_->run(options, [&](Tape& tape) { pass(tape, micro, i, false); });
    } else {
      tape_.restart(options);
      pass(tape_, micro, i, last);
      arena_.reset();
    }
  }
  return sample_size;
}

/// Running averages follow the update, unless it was skipped: then they, too, stay as they were. Only where updates may
/// be skipped has the host to know.
void UpdateRunner::follow_statistics(int64_t micro_batches) {
  if (module_.statistics().empty()) return;
  if (may_skip() && !on_host(kernels_)) kernels_.wait(kernels_.mark());
  if ((may_skip() || on_host(kernels_)) && read_state().decision.go == 0.0) return;
  module_.statistics().apply(kernels_, micro_batches);
}

/// Sums gradients and sample sizes over the ranks; losses only where the host can read them without waiting. A rank
/// that abandons the update takes part in the sums as they are, since others may be in them, and says so beside its
/// sample size.
std::optional<int64_t> UpdateRunner::reduce(std::optional<int64_t> sample_size) {
  if (comm_.size() == 1) {
    reducer_.finish();
    return sample_size;
  }
  const ProfileScope phase(Phase::all_reduce);
  reducer_.finish();
  if (const RunningStatistics& norms = module_.statistics(); !norms.empty() && !norms.frozen())
    rank_sums_.sum(norms.sums());
  if (on_host(kernels_)) state()->loss = comm_.all_reduce_sum_value(state()->loss);
  std::array<int64_t, 2> sums{sample_size.value_or(0), sample_size ? 0 : 1};
  comm_.all_reduce_sum(sums);
  if (sums[1] > 0) return std::nullopt;
  sample_size = sums[0];
  if (!options_.skip_missing) return sample_size;
  std::vector<double> touched;
  for (const auto& p : module_.parameters().all()) touched.push_back(p->slot.touched ? 1.0 : 0.0);
  comm_.all_reduce_max(touched);
  for (size_t i = 0; i < touched.size(); ++i) module_.parameters().all()[i]->slot.touched = touched[i] > 0.0;
  return sample_size;
}

bool UpdateRunner::start(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch,
                         Optimizer& optimizer, double lr) {
  const auto begun = std::chrono::steady_clock::now();
  const std::optional<int64_t> own_size = accumulate(update, count, fetch);
  busy_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const std::optional<int64_t> sample_size = reduce(own_size);
  if (!sample_size) return false;
  QN_CHECK(*sample_size > 0, "update {} has no targets: the data holds nothing but padding", update + 1);
  const ProfileScope phase(Phase::optimizer);
  ParameterStore& store = module_.parameters();
  kernels_.sum_of_squares(&state()->squares, store.grads());
  UpdateRule rule{.tokens = static_cast<double>(*sample_size),
                  .clip_norm = options_.clip_norm,
                  .skip_limit = static_cast<double>(options_.skip_limit),
                  .lr_previous = optimizer.lr_previous()};
  if (scaling()) {
    rule.growth_interval = static_cast<double>(options_.loss_scaling.growth_interval);
    rule.minimum_scale = options_.loss_scaling.minimum;
  }
  OwnedTensor copy({kStateNumbers + 1}, DType::f64, *kernels_.transfer);
  kernels_.start_download(copy.view().as<double>() + kStateNumbers, &state()->loss, sizeof(double));
  // Ranks must come to the same decision: they have the gradient in common, but not their own part of the loss.
  if (comm_.size() > 1 && !on_host(kernels_)) kernels_.fill(view_of(&state()->loss, {1}), 0.0);
  kernels_.decide_update(state(), rule);
  if (options_.before_step) options_.before_step();
  step(optimizer, lr);
  follow_statistics(count);
  kernels_.start_download(copy.view().data, state_.view().data, sizeof(UpdateState));
  const int64_t mark = kernels_.mark();
  pending_.push_back({update, *sample_size, std::move(copy), mark});
  return true;
}

/// As the decision says, which a device makes while the host goes on. Where every parameter counts its own steps the
/// host has to know whether there was one.
void UpdateRunner::step(Optimizer& optimizer, double lr) {
  if (options_.skip_missing && may_skip()) {
    kernels_.wait(kernels_.mark());
    if (read_state().decision.go == 0.0) return forget_skipped();
  }
  optimizer.step(module_.parameters(), kernels_, lr, &state()->decision);
}

UpdateResult UpdateRunner::finish() {
  QN_ASSERT(!pending_.empty());
  const Pending done = std::move(pending_.front());
  pending_.pop_front();
  kernels_.wait(done.mark);
  const UpdateState& s = *static_cast<const UpdateState*>(done.copy.view().data);
  UpdateResult result{.loss = done.copy.view().as<double>()[kStateNumbers],
                      .sample_size = done.sample_size,
                      .grad_norm = s.grad_norm,
                      .clipped = s.clipped != 0.0,
                      .skipped = s.overflow != 0.0,
                      .in_a_row = static_cast<int64_t>(s.in_a_row),
                      .loss_scale = s.loss_scale};
  if (comm_.size() > 1 && !on_host(kernels_)) result.loss = comm_.all_reduce_sum_value(result.loss);
  if (s.failed != 0.0 && scaling())
    throw Diverged(done.update, fmt::format("the gradient of update {} overflows fp16 even at a loss scale of {}",
                                            done.update + 1, s.loss_scale));
  // Devices of several ranks decide by the gradient alone: a loss that overflows without it cannot be skipped there.
  if (s.failed != 0.0 || !(scaling() || result.skipped || std::isfinite(result.loss)))
    throw Diverged(done.update, fmt::format("the gradient of update {} is not finite (loss {}, norm {}){}",
                                            done.update + 1, std::abs(result.loss), std::abs(result.grad_norm),
                                            s.in_a_row > 1.0 ? fmt::format(", as were those of the {} before it",
                                                                           static_cast<int64_t>(s.in_a_row) - 1)
                                                             : ""));
  return result;
}

std::string UpdateRunner::replay(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch) {
  Replay replay(module_, kernels_, options_.dtype);
  for (int64_t i = comm_.rank(); i < count; i += comm_.size()) {
    const std::string found = replay.run(fetch(i), pass_options(update, i));
    if (!found.empty()) return found;
  }
  return {};
}

void UpdateRunner::forget_skipped() {
  UpdateState state = read_state();
  state.decision.skipped = state.decision.kept_lr = 0.0;
  write_state(state);
}

void UpdateRunner::save(StateDict& dict) const {
  QN_ASSERT(pending_.empty());
  const UpdateState state = read_state();
  if (!may_skip() && state.decision.skipped == 0.0) return;
  if (scaling()) {
    dict.floats["update/loss_scale"] = state.loss_scale;
    dict.floats["update/good_updates"] = state.good_updates;
  }
  dict.floats["update/skipped"] = state.decision.skipped;
  dict.floats["update/in_a_row"] = state.in_a_row;
  dict.floats["update/kept_lr"] = state.decision.kept_lr;
}

void UpdateRunner::load(const StateDict& dict) {
  if (!dict.floats.contains("update/skipped")) return;  // updates were not skipped up to now
  UpdateState state = read_state();
  // The optimizer has counted what was skipped, whatever is to be skipped from now on.
  state.decision.skipped = dict.real("update/skipped");
  if (dict.floats.contains("update/kept_lr")) state.decision.kept_lr = dict.real("update/kept_lr");
  state.decision.go = state.decision.kept_lr > 0.0 ? 0.0 : 1.0;
  if (!scaling() && dict.floats.contains("update/in_a_row")) state.in_a_row = dict.real("update/in_a_row");
  if (scaling() && dict.floats.contains("update/loss_scale")) {
    state.loss_scale = dict.real("update/loss_scale");
    state.good_updates = dict.real("update/good_updates");
  }
  write_state(state);
}

}  // namespace qn
