#include "train/checkpoint_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/error.h"
#include "core/fault_point.h"
#include "core/hdf5_file.h"
#include "train/checkpoint_file.h"
#include "train/run_status.h"

namespace qn {

CheckpointWriter::CheckpointWriter(std::function<void()> when_written, RetryDelay delay)
    : when_written_(std::move(when_written)), delays_(delay), delay_(delay.first) {}

CheckpointWriter::~CheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
  }
}

std::string CheckpointWriter::Good::text() const {
  return update < 0 ? "there is no good checkpoint yet"
                    : fmt::format("the newest good checkpoint is {} of update {}", path.string(), update);
}

namespace {

bool becomes_complete(const SaveJob& job) {
  if (!job.complete.valid()) return true;
  try {
    job.complete.get();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

/// One name that fails does not keep the others from being tried.
CheckpointWriter::Attempt CheckpointWriter::attempt(std::vector<SaveJob> jobs, Good good, double next_delay) const {
  Attempt result{.left = {}, .good = std::move(good), .reason = {}};
  for (SaveJob& job : jobs) {
    if (!becomes_complete(job)) continue;
    SaveJob left{std::move(job.state), job.update, {}};
    for (const std::filesystem::path& name : job.names) {
      try {
        save_state(name, *left.state);
        fault_point("checkpoint.saved");
        if (job.update >= result.good.update) result.good = {job.update, name, unix_time()};
      } catch (const Error& error) {
        if (result.reason.empty()) result.reason = fmt::format("update {} is not saved: {}", job.update, error.what());
        left.names.push_back(name);
      }
    }
    if (!left.names.empty()) result.left.push_back(std::move(left));
  }
  if (!result.reason.empty())
    spdlog::warn("{}; the run goes on, the next try comes with the next save or in {:.0f} s; {}", result.reason,
                 next_delay, result.good.text());
  else
    call_when_written();
  return result;
}

/// What fails here (tidying up) is no failed save.
void CheckpointWriter::call_when_written() const {
  try {
    if (when_written_) when_written_();
  } catch (const std::exception& error) {
    spdlog::warn("{}", error.what());
  }
}

void CheckpointWriter::start() {
  const auto policy = Hdf5File::thread_safe() ? std::launch::async : std::launch::deferred;
  in_flight_ =
      std::async(policy, [this, jobs = std::exchange(unfinished_, {}), good = good_, delay = delay_]() mutable {
        return attempt(std::move(jobs), std::move(good), delay);
      });
  if (policy == std::launch::deferred) wait();
}

void CheckpointWriter::save(SaveJob job) {
  wait();
  abandon([&](const std::filesystem::path& name, int64_t) {
    return std::find(job.names.begin(), job.names.end(), name) != job.names.end();
  });
  unfinished_.push_back(std::move(job));
  start();
}

void CheckpointWriter::poll() {
  if (in_flight_.valid() && in_flight_.wait_for(std::chrono::seconds(0)) == std::future_status::timeout) return;
  wait();
  if (!unfinished_.empty() && Clock::now() >= next_try_) start();
}

void CheckpointWriter::wait() {
  if (!in_flight_.valid()) return;
  Attempt result = in_flight_.get();
  unfinished_ = std::move(result.left);
  good_ = std::move(result.good);
  reason_ = std::move(result.reason);
  if (unfinished_.empty()) {
    if (failing_since_) spdlog::info("saving works again after {:.0f} s: {}", failing_seconds(), good_.text());
    failing_since_.reset();
    delay_ = delays_.first;
    return;
  }
  if (!failing_since_) failing_since_ = Clock::now();
  next_try_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(delay_));
  delay_ = std::min(2 * delay_, delays_.longest);
}

void CheckpointWriter::abandon(const std::function<bool(const std::filesystem::path&, int64_t)>& gone) {
  for (SaveJob& job : unfinished_)
    std::erase_if(job.names, [&](const std::filesystem::path& name) { return gone(name, job.update); });
  std::erase_if(unfinished_, [](const SaveJob& job) { return job.names.empty(); });
}

double CheckpointWriter::failing_seconds() const {
  return failing_since_ ? std::chrono::duration<double>(Clock::now() - *failing_since_).count() : 0.0;
}

std::string CheckpointWriter::failure() const { return reason_ + "; " + good_.text(); }

}  // namespace qn
