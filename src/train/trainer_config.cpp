#include "train/trainer_config.h"

#include <cmath>

#include "comm/watchdog.h"

namespace qn {

void TrainConfig::visit(ConfigVisitor& v) {
  v.choice(
      "precision", precision,
      "type of activations and matrix operands; parameters, their gradients and checkpoints stay fp32. tf32: fp32 with "
      "products in TF32 on GPUs, no effect on CPUs; bf16: where the processor has instructions for it, else fp32; "
      "bf16_always: on any processor, emulated if need be; fp16: with dynamic loss scaling, GPUs only");
  v.field("loss_scale", loss_scale, "fp16: what the loss is multiplied by at first; halved when gradients overflow");
  v.field("loss_scale_window", loss_scale_window,
          "fp16: the loss scale doubles after so many updates without overflow (0: 16384 / micro_batches, as fairseq)");
  v.choice(
      "non_finite", non_finite,
      "an update whose loss or gradient is not finite: end the run, naming where it comes from, or leave the update "
      "out (fp16: gradients that overflow are always left out)");
  v.field("non_finite_limit", non_finite_limit,
          "skip: so many updates in a row may be left out; one more ends the run");
  v.choice("on_spike", on_spike,
           "an update whose loss or gradient is far above what is usual: say so, or go back to the newest checkpoint "
           "before it and leave out the data since then (training only)");
  v.field("spike_deviations", spike_deviations,
          "what is far: so many standard deviations, estimated from the last 128 updates (0: nothing is)");
  v.field("rollback_limit", rollback_limit, "rollback: so often in a run; from then on spikes are only told");
  v.field("check_ranks_every_updates", check_ranks_every_updates,
          "ranks compare their parameters after every n updates; one that differs is named, and the run ends (0: no)");
  v.choice("cuda_graphs", cuda_graphs,
           "GPUs get a micro-batch's forward and backward in one call once its shape has come twice; auto: with one "
           "rank. With several, the last micro-batch is left out if gradients travel during its backward");
  v.field("micro_batches", micro_batches,
          "global micro-batches per update; ranks share them out, so it should be a multiple of their number");
  v.field("max_updates", max_updates, "stop after this many updates (0: no limit)");
  v.field("max_epochs", max_epochs, "stop after this many epochs (0: no limit)");
  v.field("stop_min_lr", stop_min_lr, "stop at an epoch's start when the rate has fallen to this");
  v.field("stop_time_hours", stop_time_hours, "stop after this much training time, resumes included (0: no limit)");
  v.field("patience", patience, "stop after this many validations in a row without improvement (0: never)");
  v.field("validate_every_epochs", validate_every_epochs, "validate at every n-th epoch end (0: not there)");
  v.field("validate_every_updates", validate_every_updates, "validate every n updates as well (0: no)");
  v.field("log_every_updates", log_every_updates, "updates between log lines where stderr is no terminal");
  v.field("log_every_seconds", log_every_seconds,
          "longest time between log lines, in validation and k-means as well (0: lines by count only)");
  v.field("tensorboard", tensorboard,
          "write what metrics.jsonl says to an event file beside it, too: tensorboard --logdir CHECKPOINT.DIR");
  v.choice("measure_matmul", measure_matmul,
           "measure at the start how fast matrix products are here (0.2 s), and show which share of that rate the "
           "training uses (MFU); auto: on GPUs");
  v.field(
      "synchronize_norms", synchronize_norms,
      "batch normalisation takes its statistics over the micro-batches that all ranks compute at the same time, not "
      "over each by itself: results depend on the number of ranks then");
  v.section("ema", ema, "moving averages of what is trained; `quantize` has ipq.average_decay in their place");
}

void TrainConfig::validate(const ConfigChecker& c) const {
  c.check(micro_batches >= 1, "micro_batches", "must be at least 1, got {}", micro_batches);
  c.check(loss_scale > 0.0 && std::isfinite(loss_scale), "loss_scale", "must be positive and finite, got {}",
          loss_scale);
  c.check(stop_time_hours >= 0.0, "stop_time_hours", "must not be negative, got {}", stop_time_hours);
  c.check(loss_scale_window >= 0, "loss_scale_window", "must not be negative, got {}", loss_scale_window);
  c.check(non_finite_limit >= 1, "non_finite_limit", "must be at least 1, got {}", non_finite_limit);
  c.check(log_every_seconds >= 0.0, "log_every_seconds", "must not be negative, got {}", log_every_seconds);
  c.check(log_every_updates >= 1, "log_every_updates", "must be at least 1, got {}", log_every_updates);
  c.check(spike_deviations >= 0.0, "spike_deviations", "must not be negative, got {}", spike_deviations);
  for (const auto& [name, value] : {std::pair{"max_updates", max_updates},
                                    {"rollback_limit", rollback_limit},
                                    {"check_ranks_every_updates", check_ranks_every_updates},
                                    {"max_epochs", max_epochs},
                                    {"patience", patience},
                                    {"validate_every_epochs", validate_every_epochs},
                                    {"validate_every_updates", validate_every_updates}})
    c.check(value >= 0, name, "must not be negative, got {}", value);
}

void check_run_ends(const TrainerConfig& config, bool quantize) {
  const TrainConfig& t = config.train;
  QN_CHECK_USAGE(quantize || t.max_updates > 0 || t.max_epochs > 0 || t.patience > 0 || t.stop_min_lr >= 0.0 ||
                     t.stop_time_hours > 0.0,
                 "this run would never end: set train.max_updates, max_epochs, patience, stop_min_lr or "
                 "stop_time_hours");
}

TrainerConfig finetuning_config(TrainerConfig config) {
  if (config.ipq.updates_per_stage) return config;
  config.optimizer = config.ipq.optimizer;
  config.schedule = config.ipq.schedule;
  return config;
}

bool use_graphs(const TrainConfig& train, const Communicator& comm) {
  if (train.synchronize_norms && comm.size() > 1) return false;  // what ranks say to each other is in no graph
  return train.cuda_graphs == CudaGraphs::on || (train.cuda_graphs == CudaGraphs::automatic && comm.size() == 1);
}

void CheckpointConfig::visit(ConfigVisitor& v) {
  v.field("dir", dir, "folder for checkpoints and metrics.jsonl; a run found there is resumed");
  v.field("save_every_epochs", save_every_epochs, "keep a checkpoint at every n-th epoch end (0: no)");
  v.field("save_every_updates", save_every_updates, "save every n updates as well (0: no)");
  v.field("save_every_minutes", save_every_minutes,
          "save, as checkpoint_last.h5 only, when the last save is so long ago; also between iterations of k-means (0: "
          "no)");
  v.field("keep_epochs", keep_epochs, "epoch checkpoints to keep, newest first (-1: all)");
  v.field("keep_updates", keep_updates, "update checkpoints to keep, newest first (-1: all)");
  v.field("keep_best", keep_best,
          "of the best validated checkpoints, keep so many as checkpoint_best_{epoch}_{update}.h5, beside "
          "checkpoint_best.h5 (0: none)");
  v.field("stop_after_failed_hours", stop_after_failed_hours,
          "a save that fails (full disk) is tried again while the run goes on; the run stops when none has succeeded "
          "for so long (0: at once)");
  v.field("final_retry_minutes", final_retry_minutes,
          "how long a run at its end waits for a disk that its last state cannot be saved to");
  v.field("init_from", init_from,
          "checkpoint whose weights a new run starts from (optimizer, schedule and data order start afresh)");
  v.field("layers_to_keep", layers_to_keep,
          "layers of init_from that the run's model has, counted from 0, \"0,2,4\", or \"every-other\" of model.layers "
          "(empty: all)");
}

void CheckpointConfig::validate(const ConfigChecker& c) const {
  c.check(!dir.empty(), "dir", "must name a folder");
  c.check(save_every_epochs >= 0, "save_every_epochs", "must not be negative, got {}", save_every_epochs);
  c.check(stop_after_failed_hours >= 0.0, "stop_after_failed_hours", "must not be negative, got {}",
          stop_after_failed_hours);
  c.check(final_retry_minutes >= 0.0, "final_retry_minutes", "must not be negative, got {}", final_retry_minutes);
  c.check(save_every_updates >= 0, "save_every_updates", "must not be negative, got {}", save_every_updates);
  c.check(save_every_minutes >= 0.0, "save_every_minutes", "must not be negative, got {}", save_every_minutes);
  c.check(keep_best >= 0, "keep_best", "must not be negative, got {}", keep_best);
  c.check(keep_epochs >= -1, "keep_epochs", "must be -1 (all) or more, got {}", keep_epochs);
  c.check(keep_updates >= -1, "keep_updates", "must be -1 (all) or more, got {}", keep_updates);
}

void CommConfig::visit(ConfigVisitor& v) {
  v.field("bucket_mib", bucket_mib,
          "size of the pieces in which gradients are summed over ranks, MiB (null: 32 with NCCL, else 4)");
  v.field(
      "overlap", overlap,
      "sum gradients over ranks while the backward still runs (null: with NCCL yes, with MPI no, where it pays only "
      "between machines)");
  v.field("nccl", nccl, "let NCCL sum gradients between GPUs, where it is there (false: through host memory)");
  v.field("watchdog_seconds", watchdog_seconds,
          "longest time that a rank may be silent or keep the others waiting, validation and writing files included; "
          "then the job ends on all ranks with the rank's name (0: wait for ever)");
}

void CommConfig::validate(const ConfigChecker& c) const {
  if (bucket_mib)
    c.check(*bucket_mib > 0.0 && *bucket_mib <= 1e6, "bucket_mib", "must be positive and at most 1e6, got {}",
            *bucket_mib);
  c.check(watchdog_seconds_fit(watchdog_seconds), "watchdog_seconds", "must be 0 or at least 1, got {}",
          watchdog_seconds);
}

}  // namespace qn
