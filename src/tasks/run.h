// A configured run: the task that the configuration names, and its trainer.
#pragma once

#include <memory>

#include "tasks/language_modeling.h"
#include "train/trainer.h"

namespace qn {

/// The task of a configuration, its module built but without memory. A new kind of task gets its line here.
std::unique_ptr<Task> make_task(const RunConfig& config);

}  // namespace qn
