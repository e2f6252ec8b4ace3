// Models that a language model learns from beside its targets (ops/soft_targets.h).
#pragma once

#include <string>
#include <vector>

#include "models/language_model.h"
#include "tasks/model_file.h"

namespace qn {

class Teachers {
 public:
  Teachers() = default;
  /// Model files of any kind. Throws qn::UsageError when there is no such file, or a model has another dictionary or
  /// other bands of words.
  Teachers(const std::vector<std::string>& files, double weight, const std::string& dictionary_hash,
           const ModelConfig& student, const Kernels& kernels);

  bool empty() const { return models_.empty(); }
  /// The student's losses on `batch`; where gradients are wanted, they draw it to the teachers, too.
  Tensor losses(Tape& tape, LanguageModel& student, const TokenBatch& batch) const;

 private:
  std::vector<ModelFile> files_;
  std::vector<LanguageModel*> models_;
  double weight_ = 0.0;
};

}  // namespace qn
