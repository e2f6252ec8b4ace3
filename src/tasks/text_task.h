// What tasks on prepared text have in common: a dictionary, a model that was made for it, and data that a run goes
// through in batches.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/dictionary.h"
#include "tasks/packed_vocabulary.h"
#include "tasks/run_task.h"
#include "tasks/sampled_updates.h"

namespace qn {

/// What a text task's model is built from.
struct TextBlueprint {
  ModelConfig model;
  TaskConfig task;
  int64_t vocabulary = 0;  ///< of the model
  std::string dictionary_hash;
  int64_t tokens_per_sample = 0;  ///< of training: what a model has positions for, and the default for eval
  /// Where a packed file's vocabulary is, or that of a checkpoint:
  std::string file = {};  ///< for messages
  VocabularyStreams vocabulary_in_file = {};
  std::string training_data = {};  ///< data.path

  static TextBlueprint of_config(const RunConfig& config, int64_t vocabulary, uint64_t dictionary_hash);
  static TextBlueprint of_checkpoint(const RunConfig& config, const StateDict& state);
  static TextBlueprint of_packed(const SafetensorsReader& file, const std::string& path);
};

class TextTask : public RunTask {
 public:
  int64_t next_update(int64_t micro_batches) override { return updates_->next(micro_batches); }
  void put_back_update() override { updates_->put_back(); }
  bool step_back() override { return updates_->step_back(); }
  int64_t updates_per_epoch(int64_t micro_batches) const override { return updates_->per_epoch(micro_batches); }
  int64_t epoch() const override { return updates_->epoch(); }
  bool end_of_epoch() const override { return updates_->end_of_epoch(); }

  PackedMetadata packed_metadata() const override;
  VocabularyParts vocabulary_parts(const std::string& data) override;
  void save(StateDict& state) const override;
  void load(const StateDict& state) override;
  void check_weights(const StateDict& state) const override;
  void prune(StateDict& state, const std::string& layers_to_keep) const override;
  /// (count + 1)^exponent of every row's token in the training text, scaled to mean 1; empty where rows are no tokens.
  std::vector<float> row_importance(const Weight& weight, double exponent) const override;

 protected:
  TextTask(TextBlueprint blueprint, std::string data_path)
      : blueprint_(std::move(blueprint)), data_path_(std::move(data_path)) {}

  const TextBlueprint& blueprint() const { return blueprint_; }
  const SampledUpdates& updates() const { return *updates_; }
  const std::string& data_path() const { return data_path_; }
  /// What a run is about to go through. The checksums are of the data.
  void begin_training(BatchList batches, uint64_t seed, uint64_t train_checksum, uint64_t valid_checksum);
  /// Throws qn::Error unless the dictionary of `folder` is the model's.
  void check_dictionary(const Dictionary& dictionary, const std::string& folder) const;
  /// That of a prepared folder, which must be the model's. Throws qn::Error when it is another.
  Dictionary open_dictionary(const std::string& folder) const;

  /// What turns text into the model's ids and back; `data` as in predict().
  const Vocabulary& vocabulary(const std::string& data);
  /// That of a prepared folder, which must be the model's. Throws qn::Error when it is another.
  virtual Vocabulary open_vocabulary(const std::string& folder);
  /// Throws qn::Error unless the source language's dictionary of a file is the model's, where it has one.
  virtual void check_source(const Vocabulary& vocabulary, const std::string& where) const {
    (void)vocabulary, (void)where;
  }
  /// `data`, or where that is empty the folder that the model was trained on. Throws UsageError where there is none.
  std::string folder_of(const std::string& data) const;

  /// How often each id occurs in the training text, [vocabulary]. Called once.
  virtual std::vector<int64_t> count_tokens() const = 0;
  /// Takes what does not decide which function weights are of out of a model's configuration.
  virtual void forget_unused(ModelConfig& model) const { (void)model; }

 private:
  std::string architecture(ModelConfig model) const;

  TextBlueprint blueprint_;
  std::string data_path_;
  std::optional<SampledUpdates> updates_;
  mutable std::vector<int64_t> token_counts_;  // filled when first needed
  std::optional<Vocabulary> vocabulary_;       // what vocabulary() gave last, and for which data
  std::string vocabulary_data_;
};

/// (count + 1)^exponent of the token of every row of a token table, scaled to mean 1. `token_counts` [vocabulary].
std::vector<float> frequency_importance(const Weight& weight, std::span<const int64_t> token_counts, double exponent);

/// Throws UsageError unless there is a vocabulary, or data to look it up in: for previews of configurations.
void check_vocabulary_known(const RunConfig& config, int64_t vocabulary);

}  // namespace qn
