// A model from whatever file holds one: a training checkpoint (dense or half-quantized) or a packed file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "compress/packed_model.h"
#include "compress/run_plan.h"
#include "nn/state_dict.h"
#include "tasks/run_config.h"

namespace qn {

enum class ModelFileKind { checkpoint, packed };
template <>
struct EnumNames<ModelFileKind> {
  static constexpr EnumName<ModelFileKind> kAll[] = {{ModelFileKind::checkpoint, "checkpoint"},
                                                     {ModelFileKind::packed, "packed"}};
};

/// What the metadata of a packed file says beside the tensors.
struct PackedInfo {
  ModelConfig model;
  int64_t vocabulary = 0;
  std::string dictionary_hash;
  int64_t tokens_per_sample = 0;  ///< of training: the default for eval
  int64_t parameters = 0;         ///< of the original dense model, each tied tensor once
  CentroidGradient centroid_gradient = CentroidGradient::sum;
  std::string plan;  ///< plan_to_text(); empty in files of version 1
};

struct ModelFile {
  ModelFileKind kind;
  std::string state;  ///< for people: "after update 765", "packed, 1.10 MiB"
  PackedInfo info;
  std::unique_ptr<LanguageModel> model;
};

/// The model, for use with `kernels`. Recognises the file by its first bytes; throws qn::Error when it is neither.
ModelFile load_model_file(const std::filesystem::path& path, const Kernels& kernels = cpu_kernels());

/// By its first bytes; throws qn::Error when it is neither.
ModelFileKind kind_of_model_file(const std::filesystem::path& path);

/// The metadata that a packed file of this run gets.
PackedInfo packed_info(const RunConfig& config, int64_t vocabulary, const std::string& dictionary_hash,
                       int64_t parameters, const QuantizationPlan& plan);
PackedMetadata metadata_of(const PackedInfo& info);

/// Writes a packed file; see write_packed().
uint64_t write_packed_model(const std::filesystem::path& path, const Module& model, const PackedInfo& info,
                            const PackedStorage& storage);

struct PackedModel {
  PackedInfo info;
  std::unique_ptr<LanguageModel> model;  ///< float32, ready to evaluate
};

/// A model for use with `kernels`. Throws qn::Error naming file and tensor when it is no packed model or does not fit
/// together.
PackedModel load_packed_model(const std::filesystem::path& path, const Kernels& kernels = cpu_kernels());

/// What a checkpoint does to the weights of its model; one without a plan is planned from its configuration.
QuantizationPlan plan_of_checkpoint(const StateDict& state, const RunConfig& config, const Module& module);

}  // namespace qn
