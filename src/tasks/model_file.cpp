#include "tasks/model_file.h"

#include <spdlog/spdlog.h>

#include "compress/coded_representation.h"
#include "compress/ipq.h"
#include "compress/packed_origin.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "tasks/pruning.h"
#include "tasks/run.h"
#include "tasks/stored_config.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_seal.h"
#include "train/model_average.h"

namespace qn {
namespace {

/// Makes a model of what a file holds. What is wrong with that is no wrong usage.
template <typename F>
ModelFile blaming_the_file(const F& make) {
  try {
    return make();
  } catch (const UsageError& error) {
    fail("{}", error.what());
  }
}

/// An import was trained on nothing here, but has its dictionary beside it. Empty where there is none.
std::string folder_of_import(const std::filesystem::path& checkpoint) {
  const std::filesystem::path folder = std::filesystem::absolute(checkpoint).parent_path();
  return std::filesystem::exists(folder / "dict.txt") ? folder.string() : std::string();
}

ModelFile model_of(const StateDict& state, const std::filesystem::path& path, const Kernels& kernels) {
  RunConfig config = read_stored_run(state.text("config"), path.string() + " (config)", !state.texts.contains("plan"));
  if (config.data.path.empty()) config.data.path = folder_of_import(path);
  ModelFile file{.kind = ModelFileKind::checkpoint,
                 .state = fmt::format("after update {}", state.integer("update")),
                 .plan = {},
                 .bytes = std::filesystem::file_size(path),
                 .task = task_of_checkpoint(config, state)};
  Module& module = file.module();
  file.parameters = module.parameters().elements();
  const QuantizationPlan plan = plan_of_checkpoint(state, config, module);
  file.plan = plan_to_text(plan);
  apply_noise(module.weights(), plan);  // scalar noise quantizes in evaluation
  quantize_activations(module, plan.activations, plan.round_activations);
  module.allocate(DType::f32, kernels);
  const int64_t done = restore_quantized(module, plan, config.ipq.centroid_gradient, state);
  if (plan.stages > 0) file.state += fmt::format(", {} of {} stages quantized", done, plan.stages);
  if (holds_averages(state)) file.state += ", moving averages of its weights";
  load_module(module, state);
  return file;
}

ModelFile load_checkpoint(const std::filesystem::path& path, const Kernels& kernels,
                          const std::string& layers_to_keep) {
  StateDict state = load_state(path);
  if (!layers_to_keep.empty()) prune_checkpoint(state, layers_to_keep);
  return blaming_the_file([&] { return model_of(state, path, kernels); });
}

ModelFile model_of(const SafetensorsReader& reader, const std::string& name, uint64_t bytes, const Kernels& kernels,
                   HeldWeights held) {
  ModelFile file{.kind = ModelFileKind::packed,
                 .state = format_bytes(bytes),
                 .parameters = metadata_integer(reader, "parameters", 1, kMostValues),
                 .plan = {},
                 .bytes = bytes,
                 .task = task_of_packed(reader, name)};
  Module& module = file.module();
  if (const auto plan = reader.metadata().find("plan"); plan != reader.metadata().end()) {
    file.plan = plan->second;
    const QuantizationPlan read = plan_from_text(file.plan, name + " (metadata 'plan')");
    quantize_activations(module, read.activations, read.round_activations);
  }
  check_fits(module, reader);
  const auto gradient =
      value_named<CentroidGradient>(reader.metadata_at("centroid_gradient"), name + ": metadata 'centroid_gradient'");
  if (held == HeldWeights::codes) {
    load_packed(module, reader, name, kernels);
    if (const std::string ways = describe_coded(module); !ways.empty()) spdlog::debug("{}: {}", name, ways);
    return file;
  }
  module.allocate(DType::f32, kernels);
  load_packed(module, reader, name, gradient);
  return file;
}

ModelFile load_packed_file(const std::filesystem::path& path, const Kernels& kernels, const std::string& layers_to_keep,
                           HeldWeights held) {
  SafetensorsReader reader(path);
  const std::string name = path.string();
  check_packed_format(reader, name);
  QN_CHECK(
      !reader.metadata().contains(kOriginKey),
      "{} holds another program's weights without a network to run: `quantnoise export` makes a plain file of them",
      name);
  if (!layers_to_keep.empty()) prune_packed(reader, layers_to_keep);
  const uint64_t bytes = layers_to_keep.empty() ? reader.file_size() : packed_copy(reader).file_size();
  return blaming_the_file([&] { return model_of(reader, name, bytes, kernels, held); });
}

}  // namespace

PackedMetadata packed_metadata(const RunTask& task, int64_t parameters, CentroidGradient gradient,
                               const QuantizationPlan& plan) {
  PackedMetadata metadata = task.packed_metadata();
  metadata["parameters"] = std::to_string(parameters);
  metadata["centroid_gradient"] = name_of(gradient);
  metadata["plan"] = plan_to_text(plan);
  return metadata;
}

PackedVocabulary packed_vocabulary(RunTask& task, std::optional<bool> wanted) {
  return PackedVocabulary(wanted.value_or(task.packs_vocabulary()) ? task.vocabulary_parts({}) : VocabularyParts());
}

QuantizationPlan plan_of_checkpoint(const StateDict& state, const RunConfig& config, const Module& module) {
  const auto stored = state.texts.find("plan");
  const bool quantizes = state.ints.contains("ipq/stages_done");
  if (stored == state.texts.end()) return make_run_plan(module, config.quant_noise, quantizes ? &config.ipq : nullptr);
  QuantizationPlan plan = plan_from_text(stored->second, "the checkpoint's plan");
  check_plan(plan, module.weights(), "the checkpoint's plan");
  return plan;
}

ModelFileKind kind_of_model_file(const std::filesystem::path& path) {
  std::error_code error;
  QN_CHECK_USAGE(std::filesystem::exists(path, error), "there is no file {}", path.string());
  const FileKind kind = kind_of_file(path);
  if (kind == FileKind::checkpoint || kind == FileKind::hdf5) return ModelFileKind::checkpoint;
  if (kind == FileKind::safetensors) return ModelFileKind::packed;
  fail("{} is neither a checkpoint (.h5) nor a packed model (safetensors): it is {}{}", path.string(),
       description(kind), way_to_safetensors(kind));
}

ModelFile load_model_file(const std::filesystem::path& path, const Kernels& kernels, const std::string& layers_to_keep,
                          HeldWeights held) {
  return kind_of_model_file(path) == ModelFileKind::checkpoint ? load_checkpoint(path, kernels, layers_to_keep)
                                                               : load_packed_file(path, kernels, layers_to_keep, held);
}

}  // namespace qn
