#include "tasks/task_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace qn {

const std::vector<TaskType>& tasks_of(ModelType model) {
  static const std::vector<TaskType> kLanguageModel{TaskType::language_modeling},
      kEncoder{TaskType::masked_lm, TaskType::sentence_prediction, TaskType::sentence_embedding},
      kTransformer{TaskType::translation}, kImages{TaskType::image_classification};
  switch (model) {
    case ModelType::transformer_lm:
      return kLanguageModel;
    case ModelType::roberta:
    case ModelType::bert:
      return kEncoder;
    case ModelType::transformer:
      return kTransformer;
    case ModelType::efficientnet:
    case ModelType::resnet:
      return kImages;
  }
  QN_ASSERT(false, "unknown model type");
}

TaskType default_task(ModelType model) { return tasks_of(model).front(); }

bool learns(ModelType model, TaskType task) {
  const std::vector<TaskType>& possible = tasks_of(model);
  return std::find(possible.begin(), possible.end(), task) != possible.end();
}

void MaskedLmConfig::visit(ConfigVisitor& v) {
  v.field("mask_prob", mask_prob, "share of the tokens that the model has to guess");
  v.field("leave_unmasked_prob", leave_unmasked_prob, "share of these tokens that it sees as they are");
  v.field("random_token_prob", random_token_prob,
          "share of these tokens in whose place it sees a random one; in place of the rest it sees <mask>");
  v.field("mask_whole_words", mask_whole_words,
          "all tokens of a word are masked together (without a tokenizer every token is a word)");
  v.field("freq_weighted_replacement", freq_weighted_replacement,
          "random tokens are drawn as often as the dictionary counts them, instead of all alike");
}

void MaskedLmConfig::validate(const ConfigChecker& c) const {
  c.check(mask_prob > 0.0 && mask_prob <= 1.0, "mask_prob", "must be in (0, 1], got {}", mask_prob);
  for (const auto& [name, p] :
       {std::pair{"leave_unmasked_prob", leave_unmasked_prob}, {"random_token_prob", random_token_prob}})
    c.check(p >= 0.0 && p <= 1.0, name, "must be in [0, 1], got {}", p);
  c.check(leave_unmasked_prob + random_token_prob <= 1.0, "random_token_prob",
          "and leave_unmasked_prob are shares of the same tokens: together they must be at most 1, got {}",
          leave_unmasked_prob + random_token_prob);
}

void SentencePredictionConfig::visit(ConfigVisitor& v) {
  v.field("init_token", init_token, "id in front of the first sentence, whose features the head classifies (-1: none)");
  v.field("separator_token", separator_token,
          "id between the </s> of the first and the second sentence of a pair (-1: none)");
  v.choice(
      "shorten", shorten,
      "inputs of more than data.tokens_per_sample tokens: none: are left out of training, and stop evaluation; "
      "truncate: lose what is behind, their last </s> included; keep_end: sentences lose what is before their </s>, "
      "of a pair the longer one first, as in transformers: what imports have (fairseq's default is none)");
  v.choice(
      "metric", metric,
      "what decides which checkpoint is best: the highest accuracy, F1 (of the class called 1, or where none is, of "
      "the second one in label/dict.txt: the rarer of two), their mean, Matthews' coefficient; for numbers Pearson's "
      "or Spearman's coefficient or their mean (corr); or the lowest loss. "
      "auto: accuracy or pearson");
}

void SentencePredictionConfig::validate(const ConfigChecker& c) const {
  for (const auto& [name, id] : {std::pair{"init_token", init_token}, {"separator_token", separator_token}})
    c.check(id >= -1 && id <= kUnkId, name, "must be the id of a special symbol, 0 to {}, or -1, got {}", kUnkId, id);
}

void TranslationConfig::visit(ConfigVisitor& v) {
  v.field("label_smoothing", label_smoothing,
          "share of the target's probability that all other words are to have together (fairseq: "
          "label_smoothed_cross_entropy; its default is 0)");
}

void TranslationConfig::validate(const ConfigChecker& c) const {
  c.check(label_smoothing >= 0.0 && label_smoothing < 1.0, "label_smoothing", "must be in [0, 1), got {}",
          label_smoothing);
}

void ImageClassificationConfig::visit(ConfigVisitor& v) {
  v.field("label_smoothing", label_smoothing,
          "share of the target's probability that all classes, the right one included, are to have together (Szegedy "
          "et al. 2016)");
}

void ImageClassificationConfig::validate(const ConfigChecker& c) const {
  c.check(label_smoothing >= 0.0 && label_smoothing < 1.0, "label_smoothing", "must be in [0, 1), got {}",
          label_smoothing);
}

void SentenceEmbeddingConfig::visit(ConfigVisitor& v) {
  v.choice(
      "pooling", pooling,
      "the vector of a sentence: the mean of its tokens' features, or those of <s> ([CLS]); divided by its length");
  v.field(
      "teacher", teacher,
      "model file, usually of the dense model, whose vectors of the same sentences are to be met: the loss is 2 (1 - "
      "cosine). Validation says how near they are");
}

/// BERT's pairs are [CLS] a [SEP] b [SEP], RoBERTa's <s> a </s> </s> b </s>.
TaskConfig::TaskConfig(TaskType of, ModelType of_model) : type(of), model_(of_model) {
  if (of_model == ModelType::bert) sentences.separator_token = -1;
}

void TaskConfig::visit(ConfigVisitor& v) {
  const TaskType before = type;
  v.choice("type", type, "what the model learns (default: what its model.type is for); it decides which keys follow");
  if (type != before) *this = TaskConfig(type, model_);
  switch (type) {
    case TaskType::language_modeling:
      return;
    case TaskType::masked_lm:
      return v.visit_body(masked_lm);
    case TaskType::sentence_prediction:
      return v.visit_body(sentences);
    case TaskType::translation:
      return v.visit_body(translation);
    case TaskType::sentence_embedding:
      return v.visit_body(embedding);
    case TaskType::image_classification:
      return v.visit_body(images);
  }
}

void visit_model_and_task(ConfigVisitor& v, ModelConfig& model, TaskConfig& task) {
  const ModelType before = model.type;
  v.section("model", model, "the network");
  if (model.type != before) task = TaskConfig(default_task(model.type), model.type);
  v.section("task", task, "what it learns");
}

void check_task_fits(const ConfigChecker& c, const ModelConfig& model, const TaskConfig& task) {
  c.check(learns(model.type, task.type), "task.type", "{} is not for model.type {}, which learns {}",
          name_of(task.type), name_of(model.type), fmt::join(names_of(tasks_of(model.type)), ", "));
}

}  // namespace qn
