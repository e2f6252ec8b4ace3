#include "tasks/model_file.h"

#include <array>
#include <fstream>
#include <string_view>

#include "compress/ipq.h"
#include "core/text.h"
#include "train/checkpoint_file.h"
#include "train/checkpoint_seal.h"

namespace qn {
namespace {

ModelFile load_checkpoint(const std::filesystem::path& path, Communicator& comm, const Kernels& kernels) {
  const StateDict state = load_state(path);
  const auto config = read_config<RunConfig>(config_tree_from_text(state.text("config"), path.string() + " (config)"));
  const int64_t vocabulary = state.integer("vocabulary");
  ModelFile file{.kind = ModelFileKind::checkpoint,
                 .state = fmt::format("after update {}", state.integer("update")),
                 .info = {},
                 .model = make_language_model(config.model, vocabulary, config.data.tokens_per_sample)};
  file.info = packed_info(config, vocabulary, state.text("dictionary_hash"), file.model->parameters().elements());
  file.model->allocate(DType::f32, kernels);
  if (state.ints.contains("ipq/stages_done")) {
    IpqMachine ipq(config.ipq, *file.model, comm, static_cast<uint64_t>(config.seed));
    ipq.load(state);
    file.state += fmt::format(", {} of {} stages quantized", ipq.stages_done(), ipq.stages());
  }
  load_module(*file.model, state);
  return file;
}

}  // namespace

PackedInfo packed_info(const RunConfig& config, int64_t vocabulary, const std::string& dictionary_hash,
                       int64_t parameters) {
  return {.model = config.model,
          .vocabulary = vocabulary,
          .dictionary_hash = dictionary_hash,
          .tokens_per_sample = config.data.tokens_per_sample,
          .parameters = parameters,
          .centroid_gradient = config.ipq.centroid_gradient};
}

PackedStorage packed_storage(const IpqConfig& config) { return {.centroids = config.centroids, .dense = config.dense}; }

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

ModelFile load_model_file(const std::filesystem::path& path, Communicator& comm, const Kernels& kernels) {
  if (kind_of_model_file(path) == ModelFileKind::checkpoint) return load_checkpoint(path, comm, kernels);
  PackedModel packed = load_packed_model(path, kernels);
  return {.kind = ModelFileKind::packed,
          .state = format_bytes(std::filesystem::file_size(path)),
          .info = std::move(packed.info),
          .model = std::move(packed.model)};
}

}  // namespace qn
