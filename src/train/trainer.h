// The training loop of `train` and `quantize`: data, updates, validation, checkpoints, stop conditions, iPQ stages.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "comm/communicator.h"
#include "compress/ipq.h"
#include "compress/packed_model.h"
#include "compress/run_noise.h"
#include "train/checkpoint_folder.h"
#include "train/event_file.h"
#include "train/late_copies.h"
#include "train/metrics_log.h"
#include "train/progress.h"
#include "train/run_state.h"
#include "train/run_status.h"
#include "train/slow_ranks.h"
#include "train/spikes.h"
#include "train/stage_model.h"
#include "train/task.h"
#include "train/throughput.h"
#include "train/trainer_config.h"
#include "train/update.h"

namespace qn {

struct TrainerOptions {
  bool quantize = false;  ///< run the iPQ stages, starting from checkpoint.init_from
  bool resume = true;     ///< continue a run found in checkpoint.dir
  bool dry = false;       ///< to see whether the run would start: writes nothing; run() must not be called
  /// Asked after every update and k-means iteration; true saves and stops. Ranks may disagree: one is enough.
  std::function<bool()> stop_requested;
  /// Asked before every micro-batch; true gives the update under way up, saves what was before it, and stops: for
  /// those who cannot wait for an update. One rank is enough.
  std::function<bool()> abandon_update{};
  const Kernels* kernels = nullptr;  ///< null: cpu_kernels()
};

/// Updates of a run that trains, where that is known beforehand, else 0.
int64_t total_updates(const TrainConfig& config, const Task& task);

enum class Outcome { finished, stopped };

class Trainer {
 public:
  /// `config_text` is the whole configuration of the run, the task's part included, as checkpoints keep it. The task
  /// must outlive the trainer.
  Trainer(const TrainerConfig& config, std::string config_text, Task& task, Communicator& comm, TrainerOptions options);

  /// Trains to the end, or until asked to stop.
  Outcome run();

  /// As it is trained: moving averages (train.ema) stand beside it.
  Module& module() { return module_; }
  /// What the run does to every weight.
  const QuantizationPlan& plan() const { return plan_; }
  const IpqMachine* ipq() const { return ipq_ ? &*ipq_ : nullptr; }
  int64_t update() const { return state_.update; }
  /// Elements of the dense model, each tied tensor once, whatever is quantized by now.
  int64_t original_parameters() const { return original_parameters_; }
  /// Of activations, in training and validation.
  DType dtype() const { return dtype_; }
  const Arena& arena() const { return updates_->arena(); }
  const UpdateRunner& updates() const { return *updates_; }
  /// Validation of the model as it is; remembered until the model changes.
  const Evaluation& validate_now();
  /// Model, memory, time and disk of the run, for people; measures for some micro-batches. `packed_bytes`: of
  /// the packed file, in a run that quantizes. Collective. Throws qn::Error when the disk is too small.
  std::string check_summary(uint64_t packed_bytes);
  /// Rounds the model to what a packed file will hold (see round_to_storage()).
  void round_weights(const PackedStorage& storage);
  /// The rest of a run that quantizes, after run(): packs, and returns what to record of the packed file on rank 0.
  /// Then the run is finished.
  void pack(const std::function<std::vector<MetricField>()>& work);

 private:
  void prepare_module();
  void plan_weights(const StateDict& state);
  void start_or_resume();
  void make_update_runner();
  void start_reporting(bool resumed);
  void start_status(bool resumed);
  void restart_events();
  void write_record(std::vector<MetricField> fields);
  void write_end(const std::string& outcome, const std::string& message);
  void finish_status(Outcome outcome);
  RunStatus* status() { return status_ ? &*status_ : nullptr; }
  ProgressReporter* progress() { return progress_ ? &*progress_ : nullptr; }
  void note_saved();
  void note_update(const UpdateStats& stats);
  void note_kmeans(int64_t stage, int64_t iteration, std::map<std::string, double> objectives);
  double seconds_left(int64_t update);
  void count_parameters();
  bool find_checkpoint(StateDict& state);
  void initialize_weights();
  void forget_other_ranges(const StateDict& source);
  void resume(const StateDict& state);
  void restore(const StateDict& state);
  void begin_average(const StateDict& state);
  /// Of the module as it is trained; null where there is none.
  ModelAverage* average();
  void check_teacher(const StateDict& state) const;
  StateDict capture(std::vector<StateDict::LateCopy>* late);
  /// `goes_on`: what changes the module next is an update.
  void save(const SaveReason& reason, bool goes_on = false);
  void finish_copies();
  void finish_saving();
  std::string divergence_advice_now();

  double time_update(int64_t per_rank);
  Outcome run_and_save();
  Outcome run_to_end();
  bool run_due_stages();
  void go_on_with_last_stage();
  int64_t current_stage() const;
  const OptimizerConfig& current_optimizer() const;
  void renew_optimizer();
  bool at_stage_end() const;
  void after_stage_update();
  void end_stage();
  void report_stage(const StageReport& report);
  bool finished() const;
  double current_lr() const;
  bool one_update();
  bool begin_noise();
  bool calibration_passes(int64_t count, const PassOptions& options, const std::function<bool(int64_t)>& after);
  bool measure_norms(const std::vector<WeightPlan>& quantized);
  void measure_inputs();
  void calibrate();
  AcrossRanks across_ranks();
  /// Waits for all updates that are under way and reports them.
  void drain();
  void report(const UpdateResult& result);
  void after_update();
  bool record_validation();
  bool agreed_stop();
  void look_for_spike(int64_t update, double loss, double grad_norm);
  bool rolls_back() const;
  bool roll_back();
  void check_ranks() const;
  int64_t max_updates() const;
  void check_schedule() const;
  /// Throws qn::Error where the trained model is of no use.
  void check_result();
  [[noreturn]] void explain(const Diverged& diverged);
  std::function<MicroBatch(int64_t)> micro_batches_of(int64_t update);
  void report_skipped(int64_t update, const UpdateResult& result);
  void log_start() const;

  TrainerConfig config_;
  std::string config_text_;
  Task& task_;
  Module& module_;
  Communicator& comm_;
  TrainerOptions options_;
  const Kernels& kernels_;
  DType dtype_;
  QuantizationPlan plan_;
  std::optional<RunNoise> noise_;
  std::optional<IpqMachine> ipq_;
  Finetuning finetuning_;
  std::optional<StageModel> stage_model_;  // where there are stages
  std::optional<ModelAverage> ema_;        // train.ema
  std::unique_ptr<Optimizer> optimizer_;
  LateCopies copies_;                                // of the module and the optimizer; rank 0
  std::unique_ptr<DeviceCommunicator> device_comm_;  // null: what is on a device travels through host memory
  std::optional<UpdateRunner> updates_;
  SlowRanks slow_ranks_{comm_};
  std::optional<Throughput> throughput_;
  std::optional<CheckpointFolder> folder_;    // rank 0
  std::optional<MetricsLog> metrics_;         // rank 0
  std::optional<EventLog> events_;            // rank 0, train.tensorboard
  std::optional<ProgressReporter> progress_;  // rank 0
  std::optional<RunStatus> status_;           // rank 0

  /// What is known of an update when it starts.
  struct Started {
    int64_t update, epoch;
    double lr, seconds;
  };

  int64_t original_parameters_ = 0;
  NamedNumbers parameters_of_groups_;
  double kmeans_seconds_ = -1.0;  // of the newest stage's k-means; negative: there was none
  std::string source_;            // identity of checkpoint.init_from when the run began; rank 0
  std::string source_layers_;     // those of its layers that the run began with, if not all; rank 0
  std::string teacher_;           // contents of ipq.teacher; rank 0
  RunState state_;
  SpikeDetector spikes_;
  int64_t spike_update_ = -1;  // of a spike to roll back from; negative: there is none
  std::string spike_text_;
  bool spiked_ = false;                   // as all ranks have agreed
  int64_t count_ = 0, last_count_ = 0;    // micro-batches of the update that was started last, and of the one before
  std::deque<Started> unreported_;        // oldest first
  std::optional<Evaluation> evaluation_;  // of the module as it is, if known
  double validation_seconds_ = 0.0;       // of the newest one
  int64_t clipped_ = 0, reported_ = 0;
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_save_ = Clock::now();
  bool save_due_ = false;  // by checkpoint.save_every_minutes; the same on all ranks
};

}  // namespace qn
