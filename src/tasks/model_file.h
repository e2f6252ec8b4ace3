// A model from whatever file holds one: a training checkpoint (dense or half-quantized) or a packed file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "compress/held_weights.h"
#include "compress/run_plan.h"
#include "tasks/packed_vocabulary.h"
#include "tasks/run_task.h"

namespace qn {

enum class ModelFileKind { checkpoint, packed };
template <>
struct EnumNames<ModelFileKind> {
  static constexpr EnumName<ModelFileKind> kAll[] = {{ModelFileKind::checkpoint, "checkpoint"},
                                                     {ModelFileKind::packed, "packed"}};
};

struct ModelFile {
  ModelFileKind kind;
  std::string state;              ///< for people: "after update 765", "1.10 MiB"
  int64_t parameters = 0;         ///< of the original dense model, each tied tensor once
  std::string plan;               ///< plan_to_text(); empty in packed files of version 1
  uint64_t bytes = 0;             ///< of the file; of a pruned packed one, as it would be written
  std::unique_ptr<RunTask> task;  ///< with the file's module, float32, ready to evaluate

  Module& module() const { return task->module(); }
};

/// The model, for use with `kernels`, of it only `layers_to_keep` where that is not empty (tasks/pruning.h). Recognises
/// the file by its first bytes; throws qn::Error when it is neither, or, naming file and tensor, does not fit together.
/// Decoded weights of a packed file compute bit for bit what the model in memory did that the file was made from.
ModelFile load_model_file(const std::filesystem::path& path, const Kernels& kernels = cpu_kernels(),
                          const std::string& layers_to_keep = {}, HeldWeights held = HeldWeights::decoded);

/// By its first bytes; throws qn::Error when it is neither.
ModelFileKind kind_of_model_file(const std::filesystem::path& path);

/// The metadata that a packed file of this task gets: what the task says, and what the run did. `parameters` as in
/// ModelFile.
PackedMetadata packed_metadata(const RunTask& task, int64_t parameters, CentroidGradient gradient,
                               const QuantizationPlan& plan);

/// The vocabulary that a packed file of this task gets, `wanted` being ipq.vocabulary: none where neither that nor the
/// task says so. Throws qn::Error naming what is missing or wrong.
PackedVocabulary packed_vocabulary(RunTask& task, std::optional<bool> wanted);

/// What a checkpoint does to the weights of its model; one without a plan is planned from its configuration.
QuantizationPlan plan_of_checkpoint(const StateDict& state, const RunConfig& config, const Module& module);

}  // namespace qn
