// The configuration of a trainer: one struct per section of the YAML file, defaults in one place.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "compress/noise.h"
#include "core/config.h"
#include "train/finetuning.h"
#include "train/lr_schedule.h"
#include "train/model_average.h"
#include "train/optimizer.h"
#include "train/precision.h"

namespace qn {

enum class CudaGraphs { automatic, on, off };
template <>
struct EnumNames<CudaGraphs> {
  static constexpr EnumName<CudaGraphs> kAll[] = {
      {CudaGraphs::automatic, "auto"}, {CudaGraphs::on, "on"}, {CudaGraphs::off, "off"}};
};

enum class MeasureMatmul { automatic, always, never };
template <>
struct EnumNames<MeasureMatmul> {
  static constexpr EnumName<MeasureMatmul> kAll[] = {
      {MeasureMatmul::automatic, "auto"}, {MeasureMatmul::always, "always"}, {MeasureMatmul::never, "never"}};
};

/// What happens with an update whose loss or gradient is not finite.
enum class NonFinite { stop, skip };
template <>
struct EnumNames<NonFinite> {
  static constexpr EnumName<NonFinite> kAll[] = {{NonFinite::stop, "stop"}, {NonFinite::skip, "skip"}};
};

/// What happens where losses or gradients leap.
enum class OnSpike { warn, rollback };
template <>
struct EnumNames<OnSpike> {
  static constexpr EnumName<OnSpike> kAll[] = {{OnSpike::warn, "warn"}, {OnSpike::rollback, "rollback"}};
};

/// The section `train`: in which precision, how long, how often to look.
struct TrainConfig {
  Precision precision = Precision::fp32;
  double loss_scale = 128.0;
  int64_t loss_scale_window = 0;
  NonFinite non_finite = NonFinite::stop;
  int64_t non_finite_limit = 10;
  OnSpike on_spike = OnSpike::warn;
  double spike_deviations = 12.0;
  int64_t rollback_limit = 10;
  int64_t check_ranks_every_updates = 1000;
  CudaGraphs cuda_graphs = CudaGraphs::automatic;
  int64_t micro_batches = 1;
  int64_t max_updates = 0, max_epochs = 0;
  double stop_min_lr = -1.0, stop_time_hours = 0.0;
  int64_t patience = 0;
  int64_t validate_every_epochs = 1, validate_every_updates = 0;
  int64_t log_every_updates = 50;
  double log_every_seconds = 60.0;
  bool tensorboard = false;
  MeasureMatmul measure_matmul = MeasureMatmul::automatic;
  bool synchronize_norms = false;
  EmaConfig ema;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// The section `checkpoint`.
struct CheckpointConfig {
  std::string dir = "runs/default";
  int64_t save_every_epochs = 1, save_every_updates = 0;
  double save_every_minutes = 0.0;
  int64_t keep_epochs = 1, keep_updates = 1, keep_best = 0;
  double stop_after_failed_hours = 12.0, final_retry_minutes = 30.0;
  std::string init_from, layers_to_keep;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// The section `comm`.
struct CommConfig {
  std::optional<double> bucket_mib;
  std::optional<bool> overlap;
  bool nccl = true;
  double watchdog_seconds = 600.0;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
  /// Of a piece. NCCL, whose calls each cost a thread and a launch, is asked for fewer of them.
  size_t bucket_bytes(bool by_nccl) const {
    return static_cast<size_t>(bucket_mib.value_or(by_nccl ? 32.0 : 4.0) * 1024 * 1024);
  }
};

/// Whether micro-batches are queued as graphs where the backend has them: train.cuda_graphs.
bool use_graphs(const TrainConfig& train, const Communicator& comm);

struct TrainerConfig;
/// Throws qn::UsageError when nothing would ever end the run.
void check_run_ends(const TrainerConfig& config, bool quantize);

/// What a trainer needs to know, whatever the task.
struct TrainerConfig {
  int64_t seed = 1;
  NoiseConfig quant_noise;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  CheckpointConfig checkpoint;
  CommConfig comm;
  QuantizeConfig ipq;
};

/// With the optimizer and the schedule of the finetuning in place of those of training: ipq.optimizer and ipq.schedule,
/// unless ipq.updates_per_stage is set.
TrainerConfig finetuning_config(TrainerConfig config);

}  // namespace qn
