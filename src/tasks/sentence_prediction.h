// Sentences, or pairs of them, to classes or to a number: GLUE's tasks, by an encoder that was pretrained as a masked
// language model or by one that begins anew (reference 6.6).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/joined_sentences.h"
#include "data/sentence_inputs.h"
#include "data/sentence_pairs.h"
#include "models/sentence_encoder.h"
#include "tasks/line_batches.h"
#include "tasks/teachers.h"
#include "tasks/text_task.h"

namespace qn {

class SentencePrediction : public TextTask {
 public:
  /// Opens data.path's dictionaries and builds the model; parameters have shapes but no memory yet.
  explicit SentencePrediction(const RunConfig& config);
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

  /// What task.metric names decides; then all others that there are, and "loss": bits per sentence, of a regression the
  /// mean squared error.
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;
  std::vector<Prediction> predict(const std::string& data, std::span<const std::string> lines, const Kernels& kernels,
                                  DType dtype, int64_t lines_before) override;

  void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) override;
  PackedMetadata packed_metadata() const override;
  bool packs_vocabulary() const override { return true; }
  void save(StateDict& state) const override;
  void load(const StateDict& state) override;
  void adapt_weights(StateDict& state) const override;
  void adapt_whole_weights(StateDict& state) const override;

 private:
  /// Names of the classes; none for a regression.
  using Labels = std::vector<std::string>;
  static constexpr const char *kLabels = "labels", *kPairs = "pairs";  // in files
  struct SentenceBatchData {
    JoinedSentences sentences;
    std::vector<int32_t> labels;
    std::vector<float> scores;
  };
  /// Of all samples of a split, in their order.
  struct Outputs {
    double loss = 0.0;
    std::vector<double> values;  ///< the class that is most likely, or the number
  };
  SentencePrediction(TextBlueprint plan, Labels labels, std::string data_path);
  SentencePrediction(const RunConfig& config, SentencePairFolder folder);
  std::vector<int64_t> count_tokens() const override;
  void forget_unused(ModelConfig& model) const override;

  bool regression() const { return labels_.empty(); }
  /// Whether a file's inputs are pairs, where it says so.
  static std::optional<bool> pairs_of(const std::map<std::string, std::string>& texts);
  bool keeps_pooler(const std::string& name) const;
  /// Why the head of a checkpoint is of no use here; empty where it is.
  std::string other_head(const StateDict& state) const;
  void reorder_head(StateDict& state) const;
  SentenceInputs inputs(int64_t longest) const;
  BatchList freeze(const SentencePairs& data, const SentenceInputs& how, FreezeOptions options) const;
  SentenceBatchData batch_of(const SentencePairs& data, std::span<const int64_t> items,
                             const SentenceInputs& how) const;
  Tensor losses(Tape& tape, const Var& logits, const SentenceBatchData& batch) const;
  MicroBatch ready();  ///< of batch_
  Outputs run(SentenceEncoder& model, const SentencePairs& data, const BatchList& batches, const SentenceInputs& how,
              const Kernels& kernels, Communicator& comm, DType dtype) const;
  Evaluation judge(const SentencePairs& data, const BatchList& batches, const Outputs& outputs) const;
  void check_folder(const SentencePairFolder& folder) const;

  Vocabulary open_vocabulary(const std::string& folder) override;
  Prediction prediction_of(std::span<const double> logits) const;

  Labels labels_;
  std::optional<bool> pairs_;  // whether inputs are pairs; unset until a folder says so, where the file does not
  std::unique_ptr<SentenceEncoder> model_;
  std::optional<DataConfig> data_config_;  // these four where the task comes from a configuration
  std::optional<SentencePairFolder> folder_;
  std::optional<SentencePairs> train_, valid_;
  BatchList valid_batches_;
  uint64_t seed_ = 1;
  Teachers teachers_;
  SentenceBatchData batch_;
  LineBatches batches_;  // of predict()
};

}  // namespace qn
