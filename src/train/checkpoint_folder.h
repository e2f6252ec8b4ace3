// The checkpoints of one run: names, retention, and finding the newest valid one.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint_file.h"
#include "train/trainer_config.h"

namespace qn {

/// Why a checkpoint is written; decides under which names it is kept.
struct SaveReason {
  bool epoch_end = false;
  bool interval = false;
  bool best = false;
};

/// For rank 0. checkpoint_last.h5 is always the newest; others are hard links to what was last at the time:
/// checkpoint{E}.h5 (epoch ends), checkpoint_{E}_{U}.h5 (every save_every_updates), checkpoint_best.h5.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(const CheckpointConfig& config);

  /// Writes in the background; returns once the previous write is complete.
  void save(StateDict&& state, int64_t epoch, int64_t update, const SaveReason& reason);
  /// Waits for the write in flight.
  void wait() { writer_.wait(); }
  /// The newest undamaged checkpoint, if there is any; see newest_valid().
  std::optional<LoadedState> newest() const;

  std::filesystem::path last() const { return dir_ / "checkpoint_last.h5"; }
  std::filesystem::path best() const { return dir_ / "checkpoint_best.h5"; }
  const std::filesystem::path& dir() const { return dir_; }

 private:
  void keep_as(const std::filesystem::path& name) const;
  void prune() const;

  CheckpointConfig config_;
  std::filesystem::path dir_;
  CheckpointWriter writer_;
};

}  // namespace qn
