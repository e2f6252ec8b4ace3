// Language modelling: the next token of a text, by a model with a loss per position.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tasks/corpus.h"
#include "tasks/scoring.h"
#include "tasks/teachers.h"
#include "tasks/text_task.h"

namespace qn {

/// A batch with `tokens` targets, ready to go through the model. Both must outlive what is returned.
inline MicroBatch micro_batch_of(LanguageModel& model, const TokenBatch& batch, int64_t tokens) {
  return {[&model, batch](Tape& tape) { return model.losses(tape, batch); }, tokens, tokens};
}

class TransformerLm;

class LanguageModeling : public TextTask {
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
  void open_training() override;
  std::string describe_data(int64_t micro_batches) const override;
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;

  /// Metrics "loss" (bits per token) and "ppl".
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;
  std::vector<std::vector<Generated>> generate(const std::string& data, std::span<const std::string> lines,
                                               const GenerateConfig& config, const Kernels& kernels,
                                               DType dtype) override;
  TranslationReport generate_split(const std::string& data, const std::string& split, const GenerateConfig& config,
                                   const Kernels& kernels, DType dtype) override;
  void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) override;

 private:
  LanguageModeling(TextBlueprint plan, std::string data_path);
  LanguageModeling(const RunConfig& config, Corpus corpus);
  std::vector<int64_t> count_tokens() const override;
  TransformerLm& decoder();

  std::optional<Corpus> corpus_;  // none where the task comes from a file
  std::unique_ptr<LanguageModel> model_;
  Teachers teachers_;
  Batch batch_;
};

}  // namespace qn
