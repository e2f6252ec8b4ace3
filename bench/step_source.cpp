#include "bench/step_source.h"

#include <algorithm>

#include "bench/synthetic.h"
#include "tasks/language_modeling.h"
#include "tasks/run.h"

namespace qn::bench {

MadeUpText::MadeUpText(const RunConfig& config, int64_t vocabulary, int64_t updates)
    : rows_(std::max<int64_t>(1, config.data.max_tokens / config.data.tokens_per_sample)),
      cols_(config.data.tokens_per_sample),
      per_update_(config.train.micro_batches),
      updates_(updates),
      model_(make_language_model(config.model, vocabulary, cols_)),
      ids_(zipf_tokens(updates * per_update_ * rows_ * (cols_ + 1), vocabulary, static_cast<uint64_t>(config.seed))) {
  source_.resize(static_cast<size_t>(rows_ * cols_));
  target_.resize(source_.size());
}

int64_t MadeUpText::next_update() {
  update_ = update_ % updates_ + 1;
  return per_update_;
}

MicroBatch MadeUpText::at(int64_t update, int64_t index) {
  const int32_t* ids = ids_.data() + (update * per_update_ + index) * rows_ * (cols_ + 1);
  for (int64_t r = 0; r < rows_; ++r) {
    std::copy_n(ids + r * (cols_ + 1), cols_, source_.data() + r * cols_);
    std::copy_n(ids + r * (cols_ + 1) + 1, cols_, target_.data() + r * cols_);
  }
  return micro_batch_of(*model_, {rows_, cols_, source_, target_}, rows_ * cols_);
}

TaskUpdates::TaskUpdates(const RunConfig& config, int64_t updates)
    : task_(make_task(config)), micro_batches_(config.train.micro_batches), updates_(updates) {
  task_->open_training();
}

int64_t TaskUpdates::next_update() {
  update_ = update_ % updates_ + 1;
  return micro_batches_;
}

/// Short and long ones take turns in an update: micro-batches of one update lie far apart.
MicroBatch TaskUpdates::micro_batch(int64_t i) {
  return task_->example(i * updates_ + update_ - 1, micro_batches_ * updates_);
}

}  // namespace qn::bench
