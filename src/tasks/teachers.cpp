#include "tasks/teachers.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "core/config.h"
#include "ops/soft_targets.h"

namespace qn {
namespace {

/// What decides which distributions a model's losses are made of.
std::string output_of(ModelConfig model) {
  AdaptiveConfig bands;
  if (model.adaptive.softmax) bands.cutoffs = model.adaptive.cutoffs;
  return dump_config(bands);
}

}  // namespace

Teachers::Teachers(const std::vector<std::string>& files, double weight, const std::string& dictionary_hash,
                   const ModelConfig& student, const Kernels& kernels)
    : weight_(weight) {
  for (const std::string& path : files) {
    QN_CHECK_USAGE(std::filesystem::is_regular_file(path), "ipq.teacher: there is no file {}", path);
    ModelFile file = load_model_file(path, kernels);
    auto* model = dynamic_cast<LanguageModel*>(&file.module());
    QN_CHECK_USAGE(model != nullptr, "ipq.teacher: {} is no language model", path);
    const PackedMetadata metadata = file.task->packed_metadata();
    QN_CHECK_USAGE(metadata.at("dictionary_hash") == dictionary_hash,
                   "ipq.teacher: {} was trained with another dictionary", path);
    const auto own = read_config<ModelConfig>(config_tree_from_text(metadata.at("model"), path));
    QN_CHECK_USAGE(output_of(own) == output_of(student),
                   "ipq.teacher: {} divides its words into other bands (model.adaptive.cutoffs, softmax)", path);
    spdlog::info("teacher: {} ({})", path, file.state);
    models_.push_back(model);
    files_.push_back(std::move(file));
  }
}

Tensor Teachers::losses(Tape& tape, LanguageModel& student, const TokenBatch& batch) const {
  if (models_.empty() || !tape.recording()) return student.losses(tape, batch);
  PassOptions pass = tape.pass();
  pass.training = false;  // no dropout; recording makes gradients of logits
  std::vector<std::vector<Tensor>> gradients;
  for (LanguageModel* model : models_) {
    TeacherGradients seen;
    Tape own(tape.k, tape.arena, tape.dtype(), pass);
    model->losses(own, batch);
    gradients.push_back(seen.take());
  }
  SoftTargets targets(std::move(gradients), weight_);
  return student.losses(tape, batch);
}

}  // namespace qn
