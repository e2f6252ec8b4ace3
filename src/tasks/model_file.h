// A model from whatever file holds one: a training checkpoint (dense or half-quantized) or a packed file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "compress/packed_model.h"
#include "tasks/run_config.h"

namespace qn {

enum class ModelFileKind { checkpoint, packed };
template <>
struct EnumNames<ModelFileKind> {
  static constexpr EnumName<ModelFileKind> kAll[] = {{ModelFileKind::checkpoint, "checkpoint"},
                                                     {ModelFileKind::packed, "packed"}};
};

struct ModelFile {
  ModelFileKind kind;
  std::string state;  ///< for people: "after update 765", "packed, 1.10 MiB"
  PackedInfo info;
  std::unique_ptr<LanguageModel> model;
};

/// The model, for use with `kernels`. Recognises the file by its first bytes; throws qn::Error when it is neither.
ModelFile load_model_file(const std::filesystem::path& path, Communicator& comm,
                          const Kernels& kernels = cpu_kernels());

/// By its first bytes; throws qn::Error when it is neither.
ModelFileKind kind_of_model_file(const std::filesystem::path& path);

/// The metadata that a packed file of this run gets.
PackedInfo packed_info(const RunConfig& config, int64_t vocabulary, const std::string& dictionary_hash,
                       int64_t parameters);
PackedStorage packed_storage(const IpqConfig& config);

}  // namespace qn
