// Translation: lines of one language to lines of another, by an encoder-decoder.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/joined_sentences.h"
#include "data/parallel_text.h"
#include "models/beam_search.h"
#include "models/seq2seq.h"
#include "tasks/text_task.h"

namespace qn {

/// The dictionary of the language that is read; that of the other one is the text task's own.
struct SourceDictionary {
  int64_t vocabulary = 0;
  std::string hash;
};

class Translation : public TextTask {
 public:
  /// Opens data.path's dictionaries and builds the model; parameters have shapes but no memory yet.
  explicit Translation(const RunConfig& config);
  static std::unique_ptr<RunTask> from_config(const RunConfig& config);
  static std::unique_ptr<RunTask> preview(const RunConfig& config, int64_t vocabulary);
  static std::unique_ptr<RunTask> from_checkpoint(const RunConfig& config, const StateDict& state);
  static std::unique_ptr<RunTask> from_packed(const SafetensorsReader& file, const std::string& path);

  Module& module() override { return *model_; }

  SampleWords sample_words() const override { return {.one = "token", .many = "tokens", .briefly = "tok"}; }
  void open_training() override;
  std::string describe_data(int64_t micro_batches) const override;
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;

  /// "loss" (bits per target token, labels not smoothed), "accuracy" (percent of the target's tokens that are the most
  /// likely ones behind the target's tokens before them) and "ppl".
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;

  std::vector<std::vector<Generated>> generate(const std::string& data, std::span<const std::string> lines,
                                               const GenerateConfig& config, const Kernels& kernels,
                                               DType dtype) override;
  TranslationReport generate_split(const std::string& data, const std::string& split, const GenerateConfig& config,
                                   const Kernels& kernels, DType dtype) override;

  PackedMetadata packed_metadata() const override;
  bool packs_vocabulary() const override { return true; }
  void save(StateDict& state) const override;
  void check_weights(const StateDict& state) const override;
  void prune(StateDict& state, const std::string& layers_to_keep) const override;
  /// By the counts of the language that the table is for, or of both.
  std::vector<float> row_importance(const Weight& weight, double exponent) const override;

 private:
  struct Pairs {
    JoinedSentences source, target;
    std::vector<int32_t> previous;
  };
  struct Counts {
    double loss = 0.0;
    int64_t tokens = 0, right = 0;
  };

  Translation(TextBlueprint plan, SourceDictionary source, std::string data_path);
  Translation(const RunConfig& config, ParallelFolder folder);
  std::vector<int64_t> count_tokens() const override;
  void forget_unused(ModelConfig& model) const override;

  BatchList freeze(const std::string& name, const ParallelText& data, FreezeOptions options) const;
  Pairs pairs_of(const ParallelText& data, std::span<const int64_t> items) const;
  MicroBatch learn(Pairs pairs);
  Counts score(Seq2Seq& model, const ParallelText& data, const BatchList& batches, const Kernels& kernels,
               Communicator& comm, DType dtype) const;
  static Evaluation judge(const Counts& counts);
  void check_folder(const ParallelFolder& folder) const;
  Vocabulary open_vocabulary(const std::string& folder) override;
  void check_source(const Vocabulary& vocabulary, const std::string& where) const override;
  /// The best hypotheses for sources of ids.
  std::vector<std::vector<BeamHypothesis>> search(const std::vector<std::vector<int32_t>>& sources,
                                                  const GenerateConfig& config, const Kernels& kernels, DType dtype);

  SourceDictionary source_;
  std::unique_ptr<Seq2Seq> model_;
  std::optional<DataConfig> data_config_;  // these where the task comes from a configuration
  std::optional<ParallelFolder> folder_;
  std::optional<ParallelText> train_, valid_;
  BatchList valid_batches_;
  uint64_t seed_ = 1;
  Pairs pairs_;
};

}  // namespace qn
