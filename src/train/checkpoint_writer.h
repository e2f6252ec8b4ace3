// Writing checkpoints in the background, and again until it succeeds: a disk that is full or fails for a while costs
// no more than the time until it works again.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/state_dict.h"

namespace qn {

/// A state to be written under several names, each a file of its own.
struct SaveJob {
  std::shared_ptr<const StateDict> state;
  int64_t update = 0;
  std::vector<std::filesystem::path> names;  ///< in the order in which they are written
  /// Ready when the state is complete; one that fails is not written, and somebody else tells why. May be empty.
  std::shared_future<void> complete = {};
};

/// Seconds before a failed save is tried again; doubled with every failure.
struct RetryDelay {
  double first = 10.0, longest = 300.0;
};

/// For one thread's use; one write at a time.
class CheckpointWriter {
 public:
  /// `when_written` is called in the background thread whenever everything is on disk.
  explicit CheckpointWriter(std::function<void()> when_written = {}, RetryDelay delay = {});
  /// Waits for the write in flight.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Starts to write, after waiting for the previous write. Names that an earlier save could not write are tried again,
  /// but for those that this job has as well. Failures are logged when they occur, and the job is kept.
  void save(SaveJob job);
  /// Call it now and then: starts the next try when it is due.
  void poll();
  /// Waits for the write in flight.
  void wait();
  /// Gives names up that are still to be written: those for which `gone` holds. After wait().
  void abandon(const std::function<bool(const std::filesystem::path&, int64_t update)>& gone);

  /// Everything is on disk, as far as is known without waiting.
  bool idle() const { return !in_flight_.valid() && unfinished_.empty(); }
  /// Seconds since the first of the failures after which nothing succeeded; 0 while saving works.
  double failing_seconds() const;
  /// What failed last, and what there is instead.
  std::string failure() const;
  /// The newest state that is known to be on disk.
  struct Good {
    int64_t update = -1;  ///< -1: there is none
    std::filesystem::path path;
    double written = 0.0;  ///< unix_time(); 0: before this process began
    std::string text() const;
  };
  const Good& newest_good() const { return good_; }
  void set_newest_good(int64_t update, const std::filesystem::path& path) { good_ = {update, path, 0.0}; }

 private:
  struct Attempt {
    std::vector<SaveJob> left;
    Good good;
    std::string reason;  // empty: all is written
  };
  using Clock = std::chrono::steady_clock;
  Attempt attempt(std::vector<SaveJob> jobs, Good good, double next_delay) const;
  void call_when_written() const;
  void start();

  std::function<void()> when_written_;
  RetryDelay delays_;
  std::vector<SaveJob> unfinished_;  // oldest first
  std::future<Attempt> in_flight_;
  Good good_;
  std::string reason_;
  std::optional<Clock::time_point> failing_since_;
  Clock::time_point next_try_;
  double delay_ = 0.0;
};

}  // namespace qn
