// Language modelling: the next token of a text, by a model with a loss per position.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tasks/corpus.h"
#include "tasks/run_task.h"
#include "tasks/scoring.h"
#include "tasks/teachers.h"

namespace qn {

/// A batch with `tokens` targets, ready to go through the model. Both must outlive what is returned.
inline MicroBatch micro_batch_of(LanguageModel& model, const TokenBatch& batch, int64_t tokens) {
  return {[&model, batch](Tape& tape) { return model.losses(tape, batch); }, tokens};
}

class LanguageModeling : public RunTask {
 public:
  /// Opens data.path's dictionary and builds the model; parameters have shapes but no memory yet.
  explicit LanguageModeling(const RunConfig& config);
  static std::unique_ptr<RunTask> from_config(const RunConfig& config);
  static std::unique_ptr<RunTask> preview(const RunConfig& config, int64_t vocabulary);
  static std::unique_ptr<RunTask> from_checkpoint(const RunConfig& config, const StateDict& state);
  static std::unique_ptr<RunTask> from_packed(const SafetensorsReader& file, const std::string& path);

  Module& module() override { return *model_; }
  LanguageModel& model() { return *model_; }
  Corpus& corpus() { return *corpus_; }

  SampleWords sample_words() const override { return {.one = "token", .many = "tokens", .briefly = "tok"}; }
  std::vector<Metric> training_metrics(double loss_base2) const override;
  void open_training() override { corpus_->prepare_training(model_->max_positions()); }
  std::string describe_data(int64_t micro_batches) const override;
  int64_t next_update(int64_t micro_batches) override;
  void put_back_update() override;
  bool step_back() override;
  int64_t updates_per_epoch(int64_t micro_batches) const override {
    return corpus_->sampler().updates_per_epoch(micro_batches);
  }
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;
  int64_t epoch() const override { return corpus_->sampler().state().epoch; }
  bool end_of_epoch() const override { return corpus_->sampler().end_of_epoch(); }

  PackedMetadata packed_metadata() const override;
  /// Metrics "loss" (bits per token) and "ppl".
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;

  void save(StateDict& state) const override;
  void load(const StateDict& state) override;
  void check_weights(const StateDict& state) const override;
  void prune(StateDict& state, const std::string& layers_to_keep) const override;
  /// (count + 1)^exponent of every row's token in the training text, scaled to mean 1; empty where rows are no tokens.
  std::vector<float> row_importance(const Weight& weight, double exponent) const override;
  void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) override;

 private:
  /// What the model is built from.
  struct Blueprint {
    ModelConfig model;
    int64_t vocabulary = 0;
    std::string dictionary_hash;
    int64_t tokens_per_sample = 0;  ///< of training: the default for eval
  };
  explicit LanguageModeling(Blueprint blueprint);
  static bool is_other(const StateDict& state, const std::string& entry, uint64_t checksum);
  Dictionary open_dictionary(const std::string& folder) const;

  std::optional<Corpus> corpus_;  // none where the task comes from a file
  Blueprint blueprint_;
  std::unique_ptr<LanguageModel> model_;
  std::string data_path_;
  Teachers teachers_;
  std::vector<std::vector<int64_t>> groups_, previous_;  // of the update that was drawn last, and of the one before
  SamplerState before_update_;                           // where the sampler was when the last one was drawn
  Batch batch_;
  mutable std::vector<int64_t> token_counts_;  // filled when first needed
};

/// (count + 1)^exponent of the token of every row of a token table, scaled to mean 1. `token_counts` [vocabulary].
std::vector<float> frequency_importance(const Weight& weight, std::span<const int64_t> token_counts, double exponent);

}  // namespace qn
