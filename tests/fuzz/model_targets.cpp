// Checkpoints, packed models, weights of other programs.
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "comm/communicator.h"
#include "compress/foreign_weights.h"
#include "core/safetensors.h"
#include "core/tensor_files.h"
#include "targets.h"
#include "tasks/model_file.h"
#include "tasks/packed_vocabulary.h"
#include "train/checkpoint_file.h"
#include "train/run_record.h"
#include "train/tiny_run.h"

namespace qn::fuzz {
namespace {

namespace fs = std::filesystem;

void read_weights(Bytes input) {
  const TensorFiles files(file_with(text_of(input), "weights.safetensors"));
  ForeignWeights(files, {}, {}).predicted_sizes();
}

std::vector<std::string> weights() {
  SafetensorsWriter writer;
  std::vector<float> values(64 * 64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.01F * static_cast<float>(i % 100);
  writer.add("layer.weight", StoredType::f32, {64, 64}, values);
  writer.add("layer.bias", StoredType::f16, {2}, std::vector<uint16_t>{0x3c00, 0});
  const std::string path = file_with("", "seed.safetensors");
  writer.write(path);
  return {content_of(path)};
}

/// As version 2 has it, in which nothing tells a changed byte: otherwise fuzzing would end at the checksums.
std::string without_checksums(const std::string& packed) {
  uint64_t length = 0;
  std::memcpy(&length, packed.data(), sizeof length);
  auto header = nlohmann::ordered_json::parse(packed.substr(sizeof length, length));
  header["__metadata__"].erase("xxh3");
  header["__metadata__"]["version"] = "2";
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t shorter = text.size();
  return std::string(reinterpret_cast<const char*>(&shorter), sizeof shorter) + text + packed.substr(8 + length);
}

struct TinyFiles {
  std::string checkpoint, quantized, packed;
};

const TinyFiles& tiny_files() {
  static const TinyFiles files = [] {
    const test::TempDir dir;
    const auto alone = make_local_communicator();
    test::prepare_tiny_corpus(dir.path());
    const auto small = [](RunConfig config) {
      config.model.layers = 1;
      config.model.embed_dim = config.model.ffn_dim = 8;
      config.model.adaptive = {};
      config.train.max_updates = 1;
      config.train.validate_every_updates = 0;
      config.ipq.updates_per_stage = 1;
      config.ipq.kmeans_iterations = 1;
      config.ipq.vocabulary = true;
      return config;
    };
    test::TaskTrainer(small(test::tiny_config(dir.path(), "run")), *alone, {})->run();
    const fs::path trained = dir / "run/checkpoint_last.h5";
    TinyFiles made{.checkpoint = content_of(trained.string()), .quantized = {}, .packed = {}};
    const RunConfig config = small(test::tiny_ipq_config(dir.path(), "ipq", trained));
    test::TaskTrainer trainer(config, *alone, {.quantize = true, .resume = true, .stop_requested = {}});
    trainer->run();
    test::write_packed_file(dir / "packed", trainer, config);
    made.quantized = content_of((dir / "ipq/checkpoint_last.h5").string());
    made.packed = content_of((dir / "packed").string());
    return made;
  }();
  return files;
}

void read_checkpoint(Bytes input) {
  const fs::path path = file_with(text_of(input), "checkpoint_last.h5");
  const StateDict state = load_state(path);
  load_model_file(path);
}

std::vector<std::string> checkpoints() { return {tiny_files().checkpoint, tiny_files().quantized}; }

void read_packed(Bytes input) {
  const fs::path path = file_with(text_of(input), "model.safetensors");
  const SafetensorsReader file(path);
  describe_vocabulary(file);
  load_model_file(path);
}

std::vector<std::string> packed() { return {without_checksums(tiny_files().packed), tiny_files().packed}; }

void read_record(Bytes input) { recorded_run(fs::path(file_with(text_of(input), "run/run.json")).parent_path()); }

std::vector<std::string> records() {
  const fs::path path = file_with("", "seed/run.json");
  record_run(path.parent_path(), "0123456789abcdef");
  return {content_of(path.string())};
}

}  // namespace

std::vector<Target> model_targets() {
  return {{"weights", read_weights, weights},
          {"packed", read_packed, packed},
          {"checkpoint", read_checkpoint, checkpoints},
          {"record", read_record, records}};
}

}  // namespace qn::fuzz
