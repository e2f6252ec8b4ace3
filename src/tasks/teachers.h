// Models that others learn from, beside their targets (ops/soft_targets.h) or in place of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tasks/model_file.h"

namespace qn {

/// A model file of any kind that others learn from. `key` is for messages: where the user has named it. Throws
/// qn::UsageError when there is no such file, or its model has another dictionary (none: "").
ModelFile load_teacher(const std::string& path, const std::string& key, const std::string& dictionary_hash,
                       const Kernels& kernels);

/// Models whose distributions a student is drawn to, whatever network they are: ipq.teacher.
class Teachers {
 public:
  /// Throws qn::UsageError where a teacher's distributions are not over what the student's are over.
  using Check = std::function<void(const RunTask& teacher, const std::string& path)>;
  /// The natural-log losses of a module on the batch at hand.
  using Losses = std::function<Tensor(Module& module, Tape& tape)>;

  Teachers() = default;
  Teachers(const std::vector<std::string>& files, double weight, const std::string& dictionary_hash, const Check& check,
           const Kernels& kernels);

  /// The student's losses; where gradients are wanted, they draw it to the teachers, too.
  Tensor losses(Tape& tape, Module& student, const Losses& losses_of) const;

 private:
  std::vector<ModelFile> files_;
  double weight_ = 0.0;
};

}  // namespace qn
