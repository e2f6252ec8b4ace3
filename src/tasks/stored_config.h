// The configuration that a checkpoint was written with. Later programs may refuse values that it was free to have: so
// only that is read which decides what the file holds.
#pragma once

#include <string>
#include <vector>

#include "core/safetensors.h"
#include "tasks/run_config.h"

namespace qn {

/// A section, and the keys of it that are read: all of them if none is named.
struct StoredSection {
  std::string name;
  std::vector<std::string> keys = {};
};

/// These parts of a stored configuration. `where` begins messages.
ConfigTree stored_sections(const std::string& text, const std::string& where,
                           const std::vector<StoredSection>& sections);

/// Reads them. Throws qn::Error, never UsageError: the configuration is not the user's.
template <class T>
T read_stored(const ConfigTree& tree) {
  try {
    return read_config<T>(tree);
  } catch (const UsageError& error) {
    fail(
        "{}\nThe file was written with this configuration, of which this program cannot make the model: it is damaged, "
        "or use the quantnoise that wrote it",
        error.what());
  }
}

/// What model files need of a checkpoint's configuration; everything else has its default. `plans`: also what a plan is
/// made from, for checkpoints of old programs that have none.
RunConfig read_stored_run(const std::string& text, const std::string& where, bool plans);

/// What a packed file says of its model and task. Files of older programs have one task for a model.
ModelConfig packed_model_config(const SafetensorsReader& file, const std::string& path);
TaskConfig packed_task_config(const SafetensorsReader& file, const std::string& path);

}  // namespace qn
