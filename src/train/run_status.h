// status.json: what a run is doing right now, for whoever looks at its folder from outside (`quantnoise status`).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/enum_names.h"

namespace qn {

/// Seconds since 1970, UTC.
double unix_time();

/// How a run stands: what status.json says.
enum class RunCondition { running, finished, stopped, failed };
template <>
struct EnumNames<RunCondition> {
  static constexpr EnumName<RunCondition> kAll[] = {{RunCondition::running, "running"},
                                                    {RunCondition::finished, "finished"},
                                                    {RunCondition::stopped, "stopped"},
                                                    {RunCondition::failed, "failed"}};
};

/// The content of status.json (docs/formats.md). Times are unix_time() of the machine that writes.
struct StatusRecord {
  std::string run, command, program, host;
  int64_t pid = 0, ranks = 1;
  RunCondition condition = RunCondition::running;
  std::string message;          ///< why it stopped or failed
  std::string phase;            ///< "training", "validating", "k-means", ...
  int64_t part = 0, parts = 0;  ///< of the phase: batches of a validation, iterations of a k-means; 0: it has none
  int64_t update = 0, max_updates = 0, epoch = 0;
  int64_t stage = 0, stages = 0;  ///< of iPQ: the stage under way, from 1; 0: none
  std::string latest;             ///< "loss 5.123 | ppl 34.9": of the newest update
  double seconds_left = -1.0;     ///< of the whole run, estimated when it was written; negative: not known
  int64_t saved_update = -1;      ///< of the newest checkpoint; -1: there is none
  std::string saved_file;
  double saved = 0.0;       ///< when that was known to be on disk; 0: before this process began
  double started = 0.0;     ///< this process
  double progressed = 0.0;  ///< the last sign of the thread that computes
  double patience = 0.0;    ///< so long without a sign is wrong: comm.watchdog_seconds; 0: any time may be right
  double written = 0.0;
  int64_t beat = 0;  ///< how often the file was written: it changes as long as the process lives
};

std::string to_json(const StatusRecord& record);
/// Nothing for a text that is none of to_json()'s, or of a newer version.
std::optional<StatusRecord> parse_status(std::string_view text);

/// For rank 0. A thread of its own writes the file, atomically: the run never waits for a disk, and a file that stays
/// as it was tells that the process, not only its work, is stuck. What cannot be written is left out: the next try
/// comes by itself.
class RunStatus {
 public:
  static constexpr const char* kFileName = "status.json";
  static constexpr std::chrono::milliseconds kInterval{5000};

  RunStatus(const std::filesystem::path& folder, StatusRecord start, std::chrono::milliseconds interval = kInterval);
  /// Writes what is known last. A run that has not said how it ended has failed if an exception is on its way.
  ~RunStatus();
  RunStatus(const RunStatus&) = delete;
  RunStatus& operator=(const RunStatus&) = delete;

  /// Changes the record, which counts as a sign of progress. `soon`: something that is worth writing within a second.
  void edit(const std::function<void(StatusRecord&)>& change, bool soon = false);
  /// Another phase; `parts` as in StatusRecord.
  void enter(const std::string& phase, int64_t parts = 0);
  void part_done(int64_t part, int64_t parts);
  /// A copy of the record as it is.
  StatusRecord now() const;

  /// Of a run that has made `update` updates: how long one takes, validation and saving between them included.
  double seconds_per_update(int64_t update);
  /// What was measured so far is no guide for what comes: another stage.
  void forget_speed() { marks_.clear(); }
  /// The run is over: written before this returns, if it can be.
  void end(RunCondition condition, const std::string& message);

 private:
  void write_again_and_again();
  void write();

  std::filesystem::path path_;
  std::chrono::milliseconds interval_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  StatusRecord record_;
  bool soon_ = false, over_ = false;
  int exceptions_;
  std::mutex writing_;
  bool warned_ = false;  // of a file that cannot be written; by whoever holds writing_
  struct Mark {
    int64_t update;
    double time;
  };
  std::vector<Mark> marks_;
  std::thread thread_;
};

}  // namespace qn
