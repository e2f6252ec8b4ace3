// Where step_bench's micro-batches come from: made-up tokens for language models, a task's data for all others.
#pragma once

#include <memory>
#include <vector>

#include "models/language_model.h"
#include "tasks/run_config.h"
#include "train/task.h"

namespace qn::bench {

class StepSource {
 public:
  virtual ~StepSource() = default;
  virtual Module& module() = 0;
  /// Goes on to the next update; returns the number of its micro-batches.
  virtual int64_t next_update() = 0;
  /// Number `i` of this update. Valid until the next call.
  virtual MicroBatch micro_batch(int64_t i) = 0;
  /// Number `i` of `count` that stand for all. Valid until the next call.
  virtual MicroBatch example(int64_t i, int64_t count) = 0;
  /// What its loss is per: "tokens".
  virtual std::string samples() const { return "tokens"; }
};

/// Updates on made-up tokens; those of so many updates exist, and come again.
class MadeUpText : public StepSource {
 public:
  MadeUpText(const RunConfig& config, int64_t vocabulary, int64_t updates);

  Module& module() override { return *model_; }
  int64_t next_update() override;
  MicroBatch micro_batch(int64_t i) override { return at(update_ - 1, i); }
  MicroBatch example(int64_t i, int64_t) override { return at(0, i % per_update_); }

  int64_t rows() const { return rows_; }
  /// [updates][micro_batches][rows][cols + 1]; each row is source and target, shifted.
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  MicroBatch at(int64_t update, int64_t index);

  int64_t rows_, cols_, per_update_, updates_, update_ = 0;
  std::unique_ptr<LanguageModel> model_;
  std::vector<int32_t> ids_, source_, target_;
};

/// Updates on a task's data: micro-batches that stand for all of them, the same ones again after `updates` updates.
class TaskUpdates : public StepSource {
 public:
  TaskUpdates(const RunConfig& config, int64_t updates);

  Module& module() override { return task_->module(); }
  int64_t next_update() override;
  MicroBatch micro_batch(int64_t i) override;
  MicroBatch example(int64_t i, int64_t count) override { return task_->example(i, count); }
  std::string samples() const override { return task_->sample_words().many; }

 private:
  std::unique_ptr<Task> task_;
  int64_t micro_batches_, updates_, update_ = 0;
};

}  // namespace qn::bench
