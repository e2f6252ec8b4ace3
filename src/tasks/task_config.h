// The section `task` of a configuration: what the network is to learn.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/sentence_inputs.h"
#include "models/model_config.h"
#include "models/pooling.h"
#include "tasks/sentence_metrics.h"

namespace qn {

enum class TaskType {
  language_modeling,
  masked_lm,
  sentence_prediction,
  translation,
  sentence_embedding,
  image_classification
};
template <>
struct EnumNames<TaskType> {
  static constexpr EnumName<TaskType> kAll[] = {
      {TaskType::language_modeling, "language_modeling"},     {TaskType::masked_lm, "masked_lm"},
      {TaskType::sentence_prediction, "sentence_prediction"}, {TaskType::translation, "translation"},
      {TaskType::sentence_embedding, "sentence_embedding"},   {TaskType::image_classification, "image_classification"}};
};

/// The task of a model where none is named.
TaskType default_task(ModelType model);
bool learns(ModelType model, TaskType task);
/// What models of a type can learn, the default first.
const std::vector<TaskType>& tasks_of(ModelType model);

struct MaskedLmConfig {
  double mask_prob = 0.15, leave_unmasked_prob = 0.1, random_token_prob = 0.1;
  bool mask_whole_words = false, freq_weighted_replacement = false;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

struct SentencePredictionConfig {
  int64_t init_token = kBosId, separator_token = kEosId;
  Shorten shorten = Shorten::truncate;
  SentenceMetric metric = SentenceMetric::automatic;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

struct TranslationConfig {
  double label_smoothing = 0.1;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

struct SentenceEmbeddingConfig {
  Pooling pooling = Pooling::mean;
  std::string teacher;
  void visit(ConfigVisitor& v);
};

struct ImageClassificationConfig {
  double label_smoothing = 0.0;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

/// `type` decides which keys there are, as in ModelConfig.
struct TaskConfig {
  TaskConfig() = default;
  /// What a type is where nothing else is said, for a model of this type.
  explicit TaskConfig(TaskType of, ModelType of_model = {});

  TaskType type = TaskType::language_modeling;
  MaskedLmConfig masked_lm;
  SentencePredictionConfig sentences;
  TranslationConfig translation;
  SentenceEmbeddingConfig embedding;
  ImageClassificationConfig images;

  void visit(ConfigVisitor& v);

 private:
  ModelType model_ = ModelType::transformer_lm;  // whose defaults a new type gets
};

/// The sections `model` and `task`, the second of which depends on the first.
void visit_model_and_task(ConfigVisitor& v, ModelConfig& model, TaskConfig& task);
/// Reports a task that the model cannot learn, as a problem of the section around both.
void check_task_fits(const ConfigChecker& c, const ModelConfig& model, const TaskConfig& task);

}  // namespace qn
