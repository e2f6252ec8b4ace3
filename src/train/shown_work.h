// Work that takes long, shown to whoever looks: on the terminal or in the log, and in status.json.
#pragma once

#include <string>
#include <utility>

#include "core/work_progress.h"
#include "train/progress.h"
#include "train/run_status.h"

namespace qn {

/// From construction to destruction this thread does `what`: "validating", "k-means of stage 2". What loops tell
/// (core/work_progress.h) is passed on; afterwards the phase is what it was before. Null: not shown there.
class ShownWork {
 public:
  ShownWork(std::string what, ProgressReporter* progress, RunStatus* status)
      : what_(std::move(what)),
        progress_(progress),
        status_(status),
        listening_([this](int64_t done, int64_t total) { at(done, total); }) {
    if (status_ != nullptr) {
      before_ = status_->now().phase;
      status_->enter(what_);
    }
    if (progress_ != nullptr) progress_->begin_work(what_);
  }
  ~ShownWork() {
    if (status_ != nullptr) status_->enter(before_);
    if (progress_ != nullptr) progress_->end_work();
  }
  ShownWork(const ShownWork&) = delete;
  ShownWork& operator=(const ShownWork&) = delete;

  void at(int64_t done, int64_t total) {
    if (status_ != nullptr) status_->part_done(done, total);
    if (progress_ != nullptr) progress_->work(done, total);
  }

 private:
  std::string what_, before_;
  ProgressReporter* progress_;
  RunStatus* status_;
  ListeningScope listening_;
};

}  // namespace qn
