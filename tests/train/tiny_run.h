// A whole run in miniature: a small synthetic text, prepared, and a configuration that trains on it in seconds.
#pragma once

#include <filesystem>

#include "support/temp_dir.h"
#include "tasks/language_modeling.h"
#include "tasks/model_file.h"
#include "tasks/run.h"
#include "tasks/run_config.h"
#include "train/trainer.h"

namespace qn::test {

/// Writes a text with some structure to `dir` and prepares it in `dir`/data (train, valid, test).
void prepare_tiny_corpus(const std::filesystem::path& dir);

/// Two layers, width 32, adaptive bands, dropout everywhere; 12 updates of 4 micro-batches. Checkpoints in
/// `dir`/`name`.
RunConfig tiny_config(const std::filesystem::path& dir, const std::string& name);

/// The same model, quantized in three stages of 4 updates from checkpoint `from`.
RunConfig tiny_ipq_config(const std::filesystem::path& dir, const std::string& name, const std::filesystem::path& from);

/// A trainer with its task.
class TinyTrainer {
 public:
  TinyTrainer(const RunConfig& config, Communicator& comm, TrainerOptions options)
      : task_(config), trainer_(config, dump_config(config), task_, comm, std::move(options)) {}
  Outcome run() { return trainer_.run(); }
  Trainer* operator->() { return &trainer_; }
  LanguageModel& model() { return task_.model(); }
  LanguageModeling& task() { return task_; }
  Corpus& corpus() { return task_.corpus(); }
  int64_t update() const { return trainer_.update(); }
  int64_t original_parameters() const { return trainer_.original_parameters(); }
  DType dtype() const { return trainer_.dtype(); }
  const QuantizationPlan& plan() const { return trainer_.plan(); }
  const IpqMachine* ipq() const { return trainer_.ipq(); }
  const Evaluation& validate_now() { return trainer_.validate_now(); }
  const Arena& arena() const { return trainer_.arena(); }
  const UpdateRunner& updates() const { return trainer_.updates(); }
  void round_weights(const PackedStorage& storage) { trainer_.round_weights(storage); }

 private:
  LanguageModeling task_;
  Trainer trainer_;
};

/// A trainer with whatever task its configuration names.
class TaskTrainer {
 public:
  TaskTrainer(const RunConfig& config, Communicator& comm, TrainerOptions options)
      : task_(make_task(config)), trainer_(config, dump_config(config), *task_, comm, std::move(options)) {}
  Trainer* operator->() { return &trainer_; }
  RunTask& task() { return *task_; }

 private:
  std::unique_ptr<RunTask> task_;
  Trainer trainer_;
};

/// Writes the run's packed file as `quantize` does; returns its size.
uint64_t write_packed_file(const std::filesystem::path& path, TaskTrainer& trainer, const RunConfig& config);
/// What `quantize --dry-run` would say of that size.
uint64_t predicted_bytes(TaskTrainer& trainer, const RunConfig& config);

/// The model of a file.
inline LanguageModel& model_of(const ModelFile& file) { return dynamic_cast<LanguageModel&>(file.module()); }

/// Writes the run's packed file as `quantize` does; returns its size.
uint64_t write_packed_file(const std::filesystem::path& path, TinyTrainer& trainer, const RunConfig& config);
/// What `quantize --dry-run` would say of that size.
uint64_t predicted_bytes(TinyTrainer& trainer, const RunConfig& config);

/// Asks to stop at the n-th question (counted from 1); never for 0.
std::function<bool()> stop_at(int n);

/// All parameter values, in store order.
std::vector<float> parameter_values(Module& model);
/// All codes, in weight order.
std::vector<uint16_t> all_codes(const Module& model);

}  // namespace qn::test
