// Sentences to vectors, whose cosine says how alike two sentences are. Learned without labels: the vectors of another
// model, the teacher, are to be met, for instance those of the model before it was quantized.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/joined_sentences.h"
#include "data/sentence_lines.h"
#include "models/sentence_encoder.h"
#include "tasks/line_batches.h"
#include "tasks/teachers.h"
#include "tasks/text_task.h"

namespace qn {

class SentenceEmbedding : public TextTask {
 public:
  /// Opens data.path's dictionary and builds the model; parameters have shapes but no memory yet.
  explicit SentenceEmbedding(const RunConfig& config);
  static std::unique_ptr<RunTask> from_config(const RunConfig& config);
  static std::unique_ptr<RunTask> preview(const RunConfig& config, int64_t vocabulary);
  static std::unique_ptr<RunTask> from_checkpoint(const RunConfig& config, const StateDict& state);
  static std::unique_ptr<RunTask> from_packed(const SafetensorsReader& file, const std::string& path);

  Module& module() override { return *model_; }

  SampleWords sample_words() const override { return {.one = "sentence", .many = "sentences", .briefly = "sent"}; }
  std::vector<Metric> training_metrics(double loss_base2) const override;
  void open_training() override;
  std::string describe_data(int64_t micro_batches) const override;
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;

  /// Metrics of the cosines between the module's vectors and the teacher's: "cosine" (their mean, which decides),
  /// "cosine_median", "cosine_p05" (19 of 20 sentences are nearer), "cosine_min".
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;
  std::vector<std::vector<float>> embed(const std::string& data, std::span<const std::string> lines,
                                        const Kernels& kernels, DType dtype, int64_t lines_before) override;
  bool packs_vocabulary() const override { return true; }

 private:
  SentenceEmbedding(TextBlueprint plan, std::string data_path);
  SentenceEmbedding(const RunConfig& config, Dictionary dictionary);
  std::vector<int64_t> count_tokens() const override;
  Vocabulary open_vocabulary(const std::string& folder) override;
  void forget_unused(ModelConfig& model) const override;

  int64_t longest(int64_t tokens_per_sample) const;
  BatchList freeze(const SentenceLines& lines, FreezeOptions options) const;
  JoinedSentences batch_of(const SentenceLines& lines, std::span<const int64_t> items, int64_t longest) const;
  /// An encoder, and how its vectors are made.
  struct Vectors {
    SentenceEncoder* model;
    Pooling pooling;
  };
  ModelFile load_encoder(const std::string& path, const char* key, const Kernels& kernels) const;
  /// Of an encoder of another task the vectors are made as those of this one.
  Vectors vectors_of(const ModelFile& file) const;
  Vectors own_vectors() const { return {model_.get(), blueprint().task.embedding.pooling}; }
  /// The teacher, in the memory of `kernels`.
  Vectors teacher(const Kernels& kernels);
  MicroBatch micro_batch_of(std::span<const int64_t> items);
  /// [lines, width]: those of this rank's batches, zeros elsewhere.
  std::vector<float> compute(const Vectors& how, const SentenceLines& lines, const BatchList& batches, int64_t longest,
                             const Kernels& kernels, Communicator& comm, DType dtype) const;
  Evaluation compare(std::span<const float> vectors, std::span<const float> others, const BatchList& batches,
                     int64_t lines, Communicator& comm) const;

  std::unique_ptr<SentenceEncoder> model_;
  std::string teacher_path_;
  std::optional<ModelFile> teacher_;
  const Kernels* teacher_kernels_ = nullptr;  // that it was loaded for
  std::optional<DataConfig> data_config_;     // from here on: where the task comes from a configuration
  Dictionary dictionary_;
  std::optional<SentenceLines> train_, valid_;
  BatchList valid_batches_;
  std::vector<float> valid_targets_;  // the teacher's vectors, once they have been needed
  uint64_t seed_ = 1;
  JoinedSentences batch_;
  LineBatches batches_;  // of embed()
};

}  // namespace qn
