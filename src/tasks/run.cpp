#include "tasks/run.h"

#include "tasks/image_classification.h"
#include "tasks/language_modeling.h"
#include "tasks/masked_lm.h"
#include "tasks/sentence_embedding.h"
#include "tasks/sentence_prediction.h"
#include "tasks/stored_config.h"
#include "tasks/translation.h"

namespace qn {
namespace {

/// How a task comes to be.
struct TaskKind {
  std::unique_ptr<RunTask> (*from_config)(const RunConfig& config);
  std::unique_ptr<RunTask> (*preview)(const RunConfig& config, int64_t vocabulary);
  std::unique_ptr<RunTask> (*from_checkpoint)(const RunConfig& config, const StateDict& state);
  std::unique_ptr<RunTask> (*from_packed)(const SafetensorsReader& file, const std::string& path);
};

template <class T>
constexpr TaskKind kKind{T::from_config, T::preview, T::from_checkpoint, T::from_packed};

/// A new kind of task gets its line here.
const TaskKind& kind_of(TaskType type) {
  switch (type) {
    case TaskType::language_modeling:
      return kKind<LanguageModeling>;
    case TaskType::masked_lm:
      return kKind<MaskedLm>;
    case TaskType::sentence_prediction:
      return kKind<SentencePrediction>;
    case TaskType::translation:
      return kKind<Translation>;
    case TaskType::sentence_embedding:
      return kKind<SentenceEmbedding>;
    case TaskType::image_classification:
      return kKind<ImageClassification>;
  }
  QN_ASSERT(false, "unknown task");
}

void check_fits(const ModelConfig& model, const TaskConfig& task, const std::string& where) {
  QN_CHECK(learns(model.type, task.type), "{}: a model of type {} does not learn the task {}: this file is damaged",
           where, name_of(model.type), name_of(task.type));
}

}  // namespace

std::unique_ptr<RunTask> make_task(const RunConfig& config) { return kind_of(config.task.type).from_config(config); }

std::unique_ptr<RunTask> preview_task(const RunConfig& config, int64_t vocabulary) {
  return kind_of(config.task.type).preview(config, vocabulary);
}

std::unique_ptr<RunTask> task_of_checkpoint(const RunConfig& config, const StateDict& state) {
  check_fits(config.model, config.task, "the checkpoint's configuration");
  return kind_of(config.task.type).from_checkpoint(config, state);
}

std::unique_ptr<RunTask> task_of_packed(const SafetensorsReader& file, const std::string& path) {
  const TaskConfig task = packed_task_config(file, path);
  check_fits(packed_model_config(file, path), task, path);
  return kind_of(task.type).from_packed(file, path);
}

}  // namespace qn
