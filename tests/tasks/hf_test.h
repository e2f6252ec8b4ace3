// Folders like those of Hugging Face, of golden files, through import_hf() and export_hf().
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/stored_values.h"
#include "core/tensor_files.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tasks/hf_folder.h"

namespace qn::test {

namespace fs = std::filesystem;

/// A folder like those of Hugging Face, of the golden file NAME.
inline void make_folder_of(const fs::path& folder, const std::string& name) {
  fs::create_directories(folder);
  for (const auto& [file, as] : {std::pair(".config.json", "config.json"), {".safetensors", "model.safetensors"}}) {
    QN_GOLDEN(golden, "hf_models/" + name + file);
    fs::copy_file(golden, folder / as, fs::copy_options::overwrite_existing);
  }
}

inline nlohmann::json config_of(const fs::path& folder) {
  return nlohmann::json::parse(std::ifstream(folder / "config.json"));
}

inline void set_config(const fs::path& folder, const std::string& key, const nlohmann::json& value) {
  nlohmann::json config = config_of(folder);
  config[key] = value;
  std::ofstream(folder / "config.json") << config.dump();
}

/// How far `found` [tokens, outputs] is from the golden outputs of these rows.
inline double worst_difference(std::span<const float> found, std::span<const double> expected,
                               bool as_log_probabilities, size_t outputs) {
  double worst = 0;
  for (size_t begin = 0; begin < found.size(); begin += outputs) {
    double sum = 1;
    if (as_log_probabilities) {
      sum = 0;
      for (size_t v = 0; v < outputs; ++v) sum += std::exp(expected[begin + v]);
    }
    for (size_t v = 0; v < outputs; ++v)
      worst = std::max(worst, std::abs(found[begin + v] - (expected[begin + v] - std::log(sum))));
  }
  return worst;
}

/// What export_hf() writes of what import_hf() read from `dir`/hf: the same tensors, bit for bit but for `others`, and
/// the same of config.json under `keys`.
inline void expect_same_folder(const fs::path& dir, HfKind kind, const std::vector<std::string>& keys,
                               const std::set<std::string>& others = {}) {
  import_hf(dir / "hf", kind, dir / "run");
  const fs::path checkpoint = dir / "run" / kImportedCheckpoint;
  export_hf(load_model_file(checkpoint), checkpoint.string(), dir / "run", dir / "again");
  const TensorFiles before(dir / "hf"), after(dir / "again");
  ASSERT_EQ(before.tensors().size(), after.tensors().size());
  for (const auto& [name, tensor] : before.tensors()) {
    ASSERT_TRUE(after.tensors().contains(name)) << name;
    const StoredTensor& other = *after.tensors().at(name);
    EXPECT_EQ(tensor->shape, other.shape) << name;
    if (others.contains(name)) continue;
    EXPECT_TRUE(std::equal(tensor->bytes.begin(), tensor->bytes.end(), other.bytes.begin(), other.bytes.end())) << name;
  }
  const nlohmann::json was = config_of(dir / "hf"), is = config_of(dir / "again");
  for (const std::string& key : keys) EXPECT_EQ(was[key], is[key]) << key;
}

/// Rewrites the tensors of a folder.
inline void edit_tensors(const fs::path& folder,
                         const std::function<void(std::map<std::string, StoredTensor>&)>& change) {
  const TensorFiles files(folder);
  std::map<std::string, StoredTensor> tensors;
  for (const auto& [name, tensor] : files.tensors()) tensors[name] = *tensor;
  change(tensors);
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) writer.add(name, tensor.type, tensor.shape, tensor.bytes);
  writer.write(folder / "new");
  fs::rename(folder / "new", folder / "model.safetensors");
}

}  // namespace qn::test
