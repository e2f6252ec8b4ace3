// One update: forward and backward of this rank's share of the global micro-batches, all-reduce, clipping, optimizer.
#pragma once

#include <deque>
#include <functional>
#include <optional>

#include "comm/communicator.h"
#include "nn/kept_casts.h"
#include "train/gradient_reducer.h"
#include "train/graphed_passes.h"
#include "train/optimizer.h"
#include "train/rank_sums.h"
#include "train/task.h"

namespace qn {

/// Dynamic loss scaling of fp16 (reference 7.7).
struct LossScaling {
  double initial = 128.0;
  int64_t growth_interval = 2000;  ///< good updates after which the scale doubles
  double minimum = 1e-4;           ///< below this the run has diverged
};

/// An update whose loss or gradient is not finite and that must not be skipped: the run ends.
class Diverged : public Error {
 public:
  Diverged(int64_t update, const std::string& what) : Error(what), update_(update) {}
  int64_t update() const { return update_; }  ///< as start() was given it

 private:
  int64_t update_;
};

struct UpdateOptions {
  uint64_t seed = 1;
  DType dtype = DType::f32;  ///< of activations; see ops/kernels.h
  double clip_norm = 0.0;
  size_t bucket_bytes = size_t{4} << 20;
  bool overlap = false;                  ///< all-reduce buckets while the backward still runs
  bool synchronize_norms = false;        ///< see UpdateRunner::start()
  bool skip_missing = false;             ///< ranks must agree on which gradients are missing
  LossScaling loss_scaling{};            ///< for activations in fp16 only
  int64_t skip_limit = 0;                ///< other types: so many updates in a row may be skipped if not finite
  bool graphs = false;                   ///< queue passes as graphs, where the backend has them
  std::function<bool()> abandon{};       ///< asked before every micro-batch of this rank; see UpdateRunner::start()
  std::function<void()> before_step{};   ///< called when the parameters are about to change
  DeviceCommunicator* device = nullptr;  ///< sums gradients that are not in host memory
};

struct UpdateResult {
  double loss = 0.0;        ///< natural log, summed over all samples of all ranks
  int64_t sample_size = 0;  ///< target tokens (sentences, images) of all ranks
  double grad_norm = 0.0;   ///< of the gradient of the mean loss, before clipping
  bool clipped = false;
  bool skipped = false;     ///< the loss or the (scaled) gradient was not finite, nothing was changed
  int64_t in_a_row = 0;     ///< skipped up to now, this one included; 0 with loss scaling
  double loss_scale = 1.0;  ///< of the next update
};

class UpdateRunner {
 public:
  UpdateRunner(Module& module, const Kernels& kernels, Communicator& comm, const UpdateOptions& options);

  /// Queues update number `update` + 1 from `count` global micro-batches; `fetch(i)` is called for those of this rank
  /// (i % size == rank), and what it returns must live until the next call. The host waits for nothing that a device
  /// computes. Throws qn::Error when there are no samples. False when a rank was told to abandon the update: on all
  /// ranks, which have left their remaining micro-batches out; parameters and optimizer are as they were.
  /// Synchronised batch normalisations take the micro-batches that ranks compute at the same time for one: number n * R
  /// to n * R + R - 1 of R ranks; the last ones, where there are fewer, each for itself. Such an update is not
  /// abandoned.
  bool start(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch, Optimizer& optimizer,
             double lr);
  /// Waits for the oldest update that was started and not finished; collective. Throws Diverged when it is not finite
  /// and must not be skipped; from then on nothing changes the parameters.
  UpdateResult finish();
  /// Updates started and not finished.
  size_t pending() const { return pending_.size(); }
  UpdateResult run(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch, Optimizer& optimizer,
                   double lr) {
    const bool started = start(update, count, fetch, optimizer, lr);
    QN_ASSERT(started);
    return finish();
  }

  /// How long this rank computed on its micro-batches of the update that was started last; where a device computes, how
  /// long queueing them took.
  double busy_seconds() const { return busy_seconds_; }

  /// The optimizer is a new one: it has skipped nothing yet.
  void forget_skipped();
  /// Goes once more through this rank's micro-batches of an update that has diverged, exactly as start() did, and looks
  /// at the result of every op. Returns what is not finite first, as Replay::run() does; empty when all of it is.
  std::string replay(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch);

  /// The loss scale and the counters of skipped updates, as entries "update/..."; nothing where updates are not
  /// skipped. No update may be pending.
  void save(StateDict& state) const;
  void load(const StateDict& state);

  const Arena& arena() const { return arena_; }
  /// Null when passes are not queued as graphs.
  const GraphedPasses* graphed() const { return graphed_ ? &*graphed_ : nullptr; }

 private:
  struct Pending {
    int64_t update, sample_size;
    OwnedTensor copy;  ///< of the state, then this rank's loss
    int64_t mark;
  };
  bool scaling() const { return options_.dtype == DType::f16; }
  bool may_skip() const { return scaling() || options_.skip_limit > 0; }
  PassOptions pass_options(int64_t update, int64_t micro_batch) const;
  const SumOverRanks* ranks_of(int64_t micro_batch, int64_t count) const;
  void step(Optimizer& optimizer, double lr);
  UpdateState* state() const { return static_cast<UpdateState*>(state_.view().data); }
  void pass(Tape& tape, const MicroBatch& micro, int64_t micro_batch, bool last);
  std::optional<int64_t> accumulate(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch);
  std::optional<int64_t> reduce(std::optional<int64_t> sample_size);
  void follow_statistics(int64_t micro_batches);
  UpdateState read_state() const;
  void write_state(const UpdateState& state);

  Module& module_;
  const Kernels& kernels_;
  Communicator& comm_;
  UpdateOptions options_;
  Arena arena_;
  Tape tape_;
  RankSums rank_sums_;
  KeptCasts casts_;
  GradientReducer reducer_;
  std::optional<GraphedPasses> graphed_;
  OwnedTensor state_;  // UpdateState as doubles, in the backend's memory
  std::deque<Pending> pending_;
  double busy_seconds_ = 0.0;
};

}  // namespace qn
