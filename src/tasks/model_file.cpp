#include "tasks/model_file.h"

#include <array>
#include <fstream>
#include <string_view>

#include "compress/ipq.h"
#include "compress/packed_origin.h"
#include "core/text.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_seal.h"

namespace qn {
namespace {

ModelFile load_checkpoint(const std::filesystem::path& path, const Kernels& kernels) {
  const StateDict state = load_state(path);
  const auto config = read_config<RunConfig>(config_tree_from_text(state.text("config"), path.string() + " (config)"));
  const int64_t vocabulary = state.integer("vocabulary");
  ModelFile file{.kind = ModelFileKind::checkpoint,
                 .state = fmt::format("after update {}", state.integer("update")),
                 .info = {},
                 .model = make_language_model(config.model, vocabulary, config.data.tokens_per_sample)};
  const QuantizationPlan plan = plan_of_checkpoint(state, config, *file.model);
  file.info = packed_info(config, vocabulary, state.text("dictionary_hash"), file.model->parameters().elements(), plan);
  apply_noise(file.model->weights(), plan);  // scalar noise quantizes in evaluation
  quantize_activations(*file.model, plan.activations, plan.round_activations);
  file.model->allocate(DType::f32, kernels);
  const int64_t done = restore_quantized(*file.model, plan, config.ipq.centroid_gradient, state);
  if (plan.stages > 0) file.state += fmt::format(", {} of {} stages quantized", done, plan.stages);
  load_module(*file.model, state);
  return file;
}

PackedInfo read_info(const SafetensorsReader& file, const std::string& path) {
  QN_CHECK(
      !file.metadata().contains(kOriginKey),
      "{} holds another program's weights without a network to run: `quantnoise export` makes a plain file of them",
      path);
  PackedInfo info;
  info.model = read_config<ModelConfig>(config_tree_from_text(file.metadata_at("model"), path + " (metadata 'model')"));
  info.vocabulary = metadata_integer(file, "vocabulary");
  info.dictionary_hash = file.metadata_at("dictionary_hash");
  info.tokens_per_sample = metadata_integer(file, "tokens_per_sample");
  info.parameters = metadata_integer(file, "parameters");
  info.centroid_gradient =
      value_named<CentroidGradient>(file.metadata_at("centroid_gradient"), path + ": metadata 'centroid_gradient'");
  const auto plan = file.metadata().find("plan");
  if (plan != file.metadata().end()) info.plan = plan->second;
  return info;
}

}  // namespace

PackedInfo packed_info(const RunConfig& config, int64_t vocabulary, const std::string& dictionary_hash,
                       int64_t parameters, const QuantizationPlan& plan) {
  return {.model = config.model,
          .vocabulary = vocabulary,
          .dictionary_hash = dictionary_hash,
          .tokens_per_sample = config.data.tokens_per_sample,
          .parameters = parameters,
          .centroid_gradient = config.ipq.centroid_gradient,
          .plan = plan_to_text(plan)};
}

PackedMetadata metadata_of(const PackedInfo& info) {
  PackedMetadata metadata{{"model", dump_config(info.model)},
                          {"vocabulary", std::to_string(info.vocabulary)},
                          {"dictionary_hash", info.dictionary_hash},
                          {"tokens_per_sample", std::to_string(info.tokens_per_sample)},
                          {"parameters", std::to_string(info.parameters)},
                          {"centroid_gradient", name_of(info.centroid_gradient)}};
  if (!info.plan.empty()) metadata["plan"] = info.plan;
  return metadata;
}

uint64_t write_packed_model(const std::filesystem::path& path, const Module& model, const PackedInfo& info,
                            const PackedStorage& storage) {
  return write_packed(path, model, metadata_of(info), storage);
}

PackedModel load_packed_model(const std::filesystem::path& path, const Kernels& kernels) {
  const SafetensorsReader file(path);
  check_packed_format(file, path.string());
  PackedModel packed{read_info(file, path.string()), nullptr};
  packed.model = make_language_model(packed.info.model, packed.info.vocabulary, packed.info.tokens_per_sample);
  if (!packed.info.plan.empty()) {
    const QuantizationPlan plan = plan_from_text(packed.info.plan, path.string() + " (metadata 'plan')");
    quantize_activations(*packed.model, plan.activations, plan.round_activations);
  }
  packed.model->allocate(DType::f32, kernels);
  load_packed(*packed.model, file, path.string(), packed.info.centroid_gradient);
  return packed;
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
  std::ifstream in(path, std::ios::binary);
  QN_CHECK(in.good(), "cannot open {}: no such file, or no permission to read it", path.string());
  std::array<char, 32> head{};
  in.read(head.data(), head.size());
  const std::string_view start(head.data(), static_cast<size_t>(in.gcount()));
  if (start.starts_with(kCheckpointMagic)) return ModelFileKind::checkpoint;
  if (start.size() > 8 && start[8] == '{') return ModelFileKind::packed;
  fail("{} is neither a checkpoint (.h5) nor a packed model (safetensors)", path.string());
}

ModelFile load_model_file(const std::filesystem::path& path, const Kernels& kernels) {
  if (kind_of_model_file(path) == ModelFileKind::checkpoint) return load_checkpoint(path, kernels);
  PackedModel packed = load_packed_model(path, kernels);
  return {.kind = ModelFileKind::packed,
          .state = format_bytes(std::filesystem::file_size(path)),
          .info = std::move(packed.info),
          .model = std::move(packed.model)};
}

}  // namespace qn
