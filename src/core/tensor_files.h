// One set of tensors from one safetensors file or from several that an index joins, as large models are published:
//   model.safetensors.index.json: {"metadata": {...}, "weight_map": {TENSOR: FILE in the same folder, ...}}
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace qn {

class TensorFiles {
 public:
  /// Opens a safetensors file, an index (.json), or a folder with one index or, without any, a model.safetensors.
  /// Throws qn::Error naming file and tensor: no such file, a tensor that its file does not hold, that the index does
  /// not list, or that two files hold.
  explicit TensorFiles(const std::filesystem::path& path);
  TensorFiles(const TensorFiles&) = delete;
  TensorFiles& operator=(const TensorFiles&) = delete;

  const std::map<std::string, const StoredTensor*>& tensors() const { return tensors_; }
  /// Of all files together; where they differ, of the first that has the entry.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// All that were opened, the index among them.
  const std::vector<std::filesystem::path>& files() const { return file_paths_; }
  uint64_t bytes() const { return bytes_; }  ///< of all files together
  /// What the caller named, with a folder's file put in place of the folder.
  const std::filesystem::path& path() const { return path_; }

 private:
  void open(const std::filesystem::path& file);
  void open_index();

  std::filesystem::path path_;
  std::deque<SafetensorsReader> files_;
  std::vector<std::filesystem::path> file_paths_;
  std::map<std::string, const StoredTensor*> tensors_;
  std::map<std::string, std::string> owners_;  ///< file names by tensor
  std::map<std::string, std::string> metadata_;
  uint64_t bytes_ = 0;
};

}  // namespace qn
