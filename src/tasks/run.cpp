#include "tasks/run.h"

#include <sstream>

#include "tasks/language_modeling.h"

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
const TaskKind& kind_of(ModelType type) {
  switch (type) {
    case ModelType::transformer_lm:
      return kKind<LanguageModeling>;
  }
  QN_ASSERT(false, "unknown model type");
}

/// The line "type: NAME" of a packed file's metadata 'model'; the other lines are the task's business.
ModelType packed_type(const SafetensorsReader& file, const std::string& path) {
  constexpr std::string_view kKey = "type: ";
  std::istringstream lines(file.metadata_at("model"));
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(kKey))
      return value_named<ModelType>(line.substr(kKey.size()), path + ": metadata 'model': type");
  fail("{}: metadata 'model' has no line 'type: ...': this is no intact packed model", path);
}

}  // namespace

std::unique_ptr<RunTask> make_task(const RunConfig& config) { return kind_of(config.model.type).from_config(config); }

std::unique_ptr<RunTask> preview_task(const RunConfig& config, int64_t vocabulary) {
  return kind_of(config.model.type).preview(config, vocabulary);
}

std::unique_ptr<RunTask> task_of_checkpoint(const RunConfig& config, const StateDict& state) {
  return kind_of(config.model.type).from_checkpoint(config, state);
}

std::unique_ptr<RunTask> task_of_packed(const SafetensorsReader& file, const std::string& path) {
  return kind_of(packed_type(file, path)).from_packed(file, path);
}

}  // namespace qn
