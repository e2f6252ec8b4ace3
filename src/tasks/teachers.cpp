#include "tasks/teachers.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "ops/soft_targets.h"

namespace qn {

ModelFile load_teacher(const std::string& path, const std::string& key, const std::string& dictionary_hash,
                       const Kernels& kernels) {
  QN_CHECK_USAGE(std::filesystem::is_regular_file(path), "{}: there is no file {}", key, path);
  ModelFile file = load_model_file(path, kernels);
  const PackedMetadata metadata = file.task->packed_metadata();
  const auto hash = metadata.find("dictionary_hash");
  QN_CHECK_USAGE((hash != metadata.end() ? hash->second : std::string()) == dictionary_hash,
                 "{}: {} was trained with another dictionary", key, path);
  spdlog::info("teacher: {} ({})", path, file.state);
  return file;
}

Teachers::Teachers(const std::vector<std::string>& files, double weight, const std::string& dictionary_hash,
                   const Check& check, const Kernels& kernels)
    : weight_(weight) {
  for (const std::string& path : files) {
    files_.push_back(load_teacher(path, "ipq.teacher", dictionary_hash, kernels));
    check(*files_.back().task, path);
  }
}

Tensor Teachers::losses(Tape& tape, Module& student, const Losses& losses_of) const {
  if (files_.empty() || !tape.recording()) return losses_of(student, tape);
  PassOptions pass = tape.pass();
  pass.training = false;  // no dropout; recording makes gradients of logits
  std::vector<std::vector<Tensor>> gradients;
  for (const ModelFile& file : files_) {
    TeacherGradients seen;
    Tape own(tape.k, tape.arena, tape.dtype(), pass);
    losses_of(file.module(), own);
    gradients.push_back(seen.take());
  }
  SoftTargets targets(std::move(gradients), weight_);
  return losses_of(student, tape);
}

}  // namespace qn
