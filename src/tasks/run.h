// The task that a configuration or a model file names.
#pragma once

#include <memory>
#include <string>

#include "tasks/run_task.h"

namespace qn {

/// The task of a configuration, its data named and its module built but without memory.
std::unique_ptr<RunTask> make_task(const RunConfig& config);

/// The same for someone who wants to know its module only, where there may be no data. `vocabulary` is how many kinds
/// of symbols the data have; 0: look it up in the data. Throws qn::Error saying what is missing.
std::unique_ptr<RunTask> preview_task(const RunConfig& config, int64_t vocabulary);

/// The task of a training checkpoint or of a packed file, its module built (shapes of the dense model) but without
/// memory.
std::unique_ptr<RunTask> task_of_checkpoint(const RunConfig& config, const StateDict& state);
std::unique_ptr<RunTask> task_of_packed(const SafetensorsReader& file, const std::string& path);

}  // namespace qn
