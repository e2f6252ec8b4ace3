// The masked language model: tokens of a text that the model does not see, from all others around them (reference 6.5).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/joined_sentences.h"
#include "data/masking.h"
#include "models/sentence_encoder.h"
#include "tasks/corpus.h"
#include "tasks/teachers.h"
#include "tasks/text_task.h"

namespace qn {

/// A batch of an encoder's. The sentences must outlive it.
inline SentenceBatch view_of(const JoinedSentences& s) { return {s.tokens, {s.begins, s.lengths, s.longest}, s.types}; }

/// A dictionary with the symbol <mask> behind its others, unless it has one already; what RoBERTa's vocabulary is.
inline constexpr const char* kMaskSymbol = "<mask>";
int64_t vocabulary_with_mask(const Dictionary& dictionary);

/// What random numbers mask with.
struct MaskSource {
  int64_t seed = 1, epoch = 1;
};

class MaskedLm : public TextTask {
 public:
  /// Opens data.path's dictionary and builds the model; parameters have shapes but no memory yet.
  explicit MaskedLm(const RunConfig& config);
  static std::unique_ptr<RunTask> from_config(const RunConfig& config);
  static std::unique_ptr<RunTask> preview(const RunConfig& config, int64_t vocabulary);
  static std::unique_ptr<RunTask> from_checkpoint(const RunConfig& config, const StateDict& state);
  static std::unique_ptr<RunTask> from_packed(const SafetensorsReader& file, const std::string& path);

  Module& module() override { return *model_; }
  SentenceEncoder& model() { return *model_; }

  SampleWords sample_words() const override {
    return {.one = "masked token", .many = "masked_tokens", .briefly = "masked tok"};
  }
  std::vector<Metric> training_metrics(double loss_base2) const override;
  void open_training() override;
  std::string describe_data(int64_t micro_batches) const override;
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;

  /// Metrics "loss" (bits per masked token) and "ppl". What is masked is always the same.
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;
  void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) override;

 private:
  /// Blocks with <s> in front, some of whose tokens are masked.
  struct MaskedBatch {
    JoinedSentences sentences;
    std::vector<int32_t> rows, targets;  ///< which rows have to be guessed, and what they were
  };
  MaskedLm(TextBlueprint plan, std::string data_path);
  MaskedLm(const RunConfig& config, Corpus corpus);
  std::vector<int64_t> count_tokens() const override;

  void set_masking(const Dictionary& dictionary, const std::string& folder);
  MaskedBatch masked_batch(const TokenBlocks& blocks, std::span<const int64_t> items, const MaskSource& masks) const;
  static Tensor losses(SentenceEncoder& model, Tape& tape, const MaskedBatch& batch);
  MicroBatch ready();  ///< of batch_
  struct Sums {
    double loss = 0.0;
    int64_t masked = 0;
  };
  Sums score(SentenceEncoder& model, const TokenBlocks& blocks, const BatchList& batches, const Kernels& kernels,
             Communicator& comm, DType dtype) const;

  std::optional<Corpus> corpus_;  // none where the task comes from a file
  std::unique_ptr<SentenceEncoder> model_;
  std::optional<Masking> masking_;
  int64_t seed_ = 1;
  Teachers teachers_;
  MaskedBatch batch_;
};

}  // namespace qn
