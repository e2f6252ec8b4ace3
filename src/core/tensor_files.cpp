#include "core/tensor_files.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/strict_json.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char *kIndexEnding = ".index.json", *kSingleFile = "model.safetensors";

/// The index in a folder, or the file that needs none.
fs::path file_in(const fs::path& folder) {
  std::set<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().ends_with(kIndexEnding)) found.insert(entry.path());
  QN_CHECK(found.size() <= 1, "there are {} index files in {}, for instance {}: name the one to read", found.size(),
           folder.string(), found.begin()->filename().string());
  if (!found.empty()) return *found.begin();
  const fs::path torch = folder / "pytorch_model.bin";
  QN_CHECK(fs::exists(folder / kSingleFile), "there is neither *{} nor {} in {}{}", kIndexEnding, kSingleFile,
           folder.string(),
           fs::exists(torch) ? fmt::format(", but {}, which is {}{}", torch.filename().string(),
                                           description(kind_of_file(torch)), way_to_safetensors(kind_of_file(torch)))
                             : ": name a file");
  return folder / kSingleFile;
}

/// Names of files by tensor.
std::map<std::string, std::string> weight_map_of(const fs::path& index) {
  using nlohmann::json;
  const std::vector<std::byte> bytes = read_file_bytes(index);
  std::string repeated;
  try {
    const json content = parse_unique_json<json>({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, repeated);
    QN_CHECK(repeated.empty(), "{}: '{}' appears twice", index.string(), repeated);
    return content.at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const json::exception& error) {
    fail("{} is no index of safetensors files, which has a 'weight_map' of tensors to files ({})", index.string(),
         json_problem(error));
  }
}

}  // namespace

TensorFiles::TensorFiles(const fs::path& path) : path_(fs::is_directory(path) ? file_in(path) : path) {
  if (path_.extension() == ".json")
    open_index();
  else
    open(path_);
}

void TensorFiles::open(const fs::path& file) {
  const SafetensorsReader& reader = files_.emplace_back(file);
  file_paths_.push_back(file);
  bytes_ += reader.file_size();
  metadata_.insert(reader.metadata().begin(), reader.metadata().end());
  for (const StoredTensor& tensor : reader.tensors()) {
    const auto [owner, fresh] = owners_.try_emplace(tensor.name, file.filename().string());
    QN_CHECK(fresh, "{}: tensor '{}' is in {} and in {}: remove one of them", path_.string(), tensor.name,
             owner->second, file.filename().string());
    tensors_[tensor.name] = &tensor;
  }
}

void TensorFiles::open_index() {
  const std::map<std::string, std::string> listed = weight_map_of(path_);
  file_paths_.push_back(path_);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : listed) {
    QN_CHECK(!shard.empty() && fs::path(shard).filename() == shard,
             "{}: tensor '{}' is said to be in '{}'; shards must lie beside the index", path_.string(), tensor, shard);
    if (!shards.insert(shard).second) continue;
    QN_CHECK(fs::exists(path_.parent_path() / shard), "{}: shard {}, which holds tensor '{}', is missing",
             path_.string(), shard, tensor);
  }
  for (const std::string& shard : shards) open(path_.parent_path() / shard);
  for (const auto& [tensor, shard] : listed) {
    const auto owner = owners_.find(tensor);
    QN_CHECK(owner != owners_.end(), "{}: tensor '{}' is not in shard {}, where the index says it is", path_.string(),
             tensor, shard);
    QN_CHECK(owner->second == shard, "{}: tensor '{}' is in shard {}, the index says {}", path_.string(), tensor,
             owner->second, shard);
  }
  for (const auto& [tensor, shard] : owners_)
    QN_CHECK(listed.contains(tensor), "{}: shard {} holds tensor '{}', which the index does not list", path_.string(),
             shard, tensor);
}

}  // namespace qn
