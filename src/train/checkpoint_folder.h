// The folder of a run, for rank 0: whose it is, the names of its checkpoints, retention, and finding the newest valid
// one. Only the folder's current run counts (see run_record.h): checkpoints of other runs are neither resumed nor
// pruned.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/folder_lock.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_writer.h"
#include "train/task.h"
#include "train/trainer_config.h"

namespace qn {

/// Folders in a run's own to which a start with --fresh moves what was there.
inline constexpr const char* kDiscardedPrefix = "discarded-";
inline constexpr const char *kLastCheckpoint = "checkpoint_last.h5", *kBestCheckpoint = "checkpoint_best.h5";

/// Why a checkpoint is written; decides under which names it is kept.
struct SaveReason {
  bool epoch_end = false;
  bool interval = false;
  bool best = false;
  std::optional<Metric> among_best = {};  ///< one of the checkpoint.keep_best best validations, and what it found
  bool any() const { return epoch_end || interval || best || among_best; }
};

/// The checkpoints that a run in `dir` may go on from: those of the folder's current run, newest first; all where
/// run.json is missing or damaged. Only reads, and needs no lock; nothing where there is no such folder.
std::vector<std::filesystem::path> resumable_checkpoints(const std::filesystem::path& dir);
/// The newest undamaged one of them, from which a run in `dir` goes on, if there is any; see newest_valid(). What is
/// passed over is logged.
std::optional<LoadedState> newest_checkpoint(const std::filesystem::path& dir);

/// checkpoint_last.h5 is always the newest; others are copies of what was last at the time, files of their own:
/// checkpoint{E}.h5 (epoch ends), checkpoint_{E}_{U}.h5 (every save_every_updates), checkpoint_best.h5, and
/// checkpoint_best_{E}_{U}.h5 (keep_best).
class CheckpointFolder {
 public:
  /// Makes the folder, if need be, and takes it: it is this process's as long as this object lives. Throws qn::Error
  /// when another process has it.
  explicit CheckpointFolder(const CheckpointConfig& config, RetryDelay delay = {});

  std::optional<LoadedState> newest() const { return newest_checkpoint(dir_); }
  /// Goes on with the run of a checkpoint of this folder.
  void continue_run(const LoadedState& from);
  /// Begins a new run: it becomes the folder's current one, and what other runs have left (checkpoints, metrics.jsonl,
  /// event files, the packed file) is moved to a folder in the folder.
  void begin_run();
  /// The current run's identity; empty in a run that older programs began.
  const std::string& run() const { return run_; }

  /// Writes in the background; returns once the previous write is over. What fails is logged and tried again.
  /// `complete`: see SaveJob.
  void save(std::shared_ptr<StateDict> state, int64_t epoch, int64_t update, const SaveReason& reason,
            std::shared_future<void> complete);
  void save(StateDict&& state, int64_t epoch, int64_t update, const SaveReason& reason) {
    save(std::make_shared<StateDict>(std::move(state)), epoch, update, reason, {});
  }
  /// Call it now and then: tries again what has failed, when it is due.
  void poll() { writer_.poll(); }
  /// Waits for the write in flight.
  void wait() { writer_.wait(); }
  /// Everything is on disk.
  bool idle() const { return writer_.idle(); }
  /// The newest checkpoint that is known to be on disk.
  const CheckpointWriter::Good& newest_good() const { return writer_.newest_good(); }
  /// No save has succeeded for checkpoint.stop_after_failed_hours.
  bool failed_too_long() const;
  /// What could not be saved, why, and which checkpoint there is.
  std::string failure() const { return writer_.failure(); }

  std::filesystem::path last() const;
  std::filesystem::path best() const;
  std::filesystem::path metrics() const { return dir_ / "metrics.jsonl"; }
  const std::filesystem::path& dir() const { return dir_; }

 private:
  void prune() const;
  void prune_best() const;

  CheckpointConfig config_;
  std::filesystem::path dir_;
  std::string run_;
  FolderLock lock_;
  CheckpointWriter writer_;  // before the lock goes: its destructor waits
};

}  // namespace qn
