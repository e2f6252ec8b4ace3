#include "tasks/run.h"

namespace qn {

std::unique_ptr<Task> make_task(const RunConfig& config) {
  switch (config.model.type) {
    case ModelType::transformer_lm:
      return std::make_unique<LanguageModeling>(config);
  }
  QN_ASSERT(false, "unknown model type");
}

}  // namespace qn
