#include "train/checkpoint_file.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <map>

#include "core/fault_point.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/hdf5_file.h"
#include "core/text.h"
#include "train/whole_read.h"

namespace qn {
namespace {

const std::string kRoot, kTensors = "tensors", kTexts = "texts", kInts = "ints", kFloats = "floats";

static_assert(std::endian::native == std::endian::little, "checksums are those of little-endian bytes");

/// HDF5 reads '/' as a group and skips empty and "." components, so two such names could mean one dataset.
void check_name(const std::string& name) {
  const std::string framed = "/" + name + "/";
  QN_ASSERT(framed.find("//") == std::string::npos && framed.find("/./") == std::string::npos &&
                name.find_first_of(std::string("\0\n", 2)) == std::string::npos,
            "'{}' cannot be the name of a checkpoint entry", name);
}

/// What becomes a dataset: every tensor, and every text as bytes.
std::map<std::string, Tensor> datasets_of(const StateDict& state) {
  std::map<std::string, Tensor> datasets;
  for (const auto& [name, tensor] : state.tensors) datasets[kTensors + "/" + name] = tensor.view();
  for (const auto& [name, text] : state.texts) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    datasets[kTexts + "/" + name] = view_of(bytes, {static_cast<int64_t>(text.size())});
  }
  return datasets;
}

void write_state(const std::filesystem::path& path, const StateDict& state) {
  const std::map<std::string, Tensor> datasets = datasets_of(state);
  std::vector<std::string> names;
  for (const auto& entry : datasets) names.push_back(entry.first);
  const auto check_names = [](const auto& entries) {
    for (const auto& entry : entries) check_name(entry.first);
  };
  check_names(datasets);
  check_names(state.ints);
  check_names(state.floats);

  Hdf5File file(path, Hdf5File::Mode::create, seal_block_bytes(names));
  file.write_attribute(kRoot, "format", std::string("quantnoise-checkpoint"));
  file.write_attribute(kRoot, "version", int64_t{1});
  for (const std::string& group : {kTensors, kTexts, kInts, kFloats}) file.create_group(group);
  for (const auto& [name, value] : state.ints) file.write_attribute(kInts, name, value);
  for (const auto& [name, value] : state.floats) file.write_attribute(kFloats, name, value);
  std::vector<SealedSection> sections;
  for (const auto& [name, tensor] : datasets) {
    file.write_tensor(name, tensor);
    const Hdf5File::Extent extent = file.extent(name);
    sections.push_back({name, extent.offset, extent.bytes, hash_bytes(tensor.data, tensor.bytes())});
  }
  file.close();
  fault_point("checkpoint.unsealed");
  write_seal(path, sections);
  fault_point("checkpoint.sealed");
}

/// Calls function(name, dataset) for every dataset below `group`; names are relative to `root`.
template <typename Function>
void for_each_dataset(const Hdf5File& file, const std::string& root, const std::string& group, Function&& function) {
  for (const std::string& member : file.members(group)) {
    const std::string path = group + "/" + member;
    if (file.is_group(path)) {
      for_each_dataset(file, root, path, function);
    } else {
      function(path.substr(root.size() + 1), path);
    }
  }
}

StateDict read_state(const Hdf5File& file) {
  StateDict state;
  for_each_dataset(file, kTensors, kTensors, [&](const std::string& name, const std::string& dataset) {
    state.tensors.emplace(name, file.read_tensor(dataset));
  });
  for_each_dataset(file, kTexts, kTexts, [&](const std::string& name, const std::string& dataset) {
    const std::vector<uint8_t> bytes = file.read<uint8_t>(dataset);
    state.texts.emplace(name, std::string(bytes.begin(), bytes.end()));
  });
  for (const std::string& name : file.attributes(kInts)) state.ints[name] = file.int_attribute(kInts, name);
  for (const std::string& name : file.attributes(kFloats)) state.floats[name] = file.float_attribute(kFloats, name);
  return state;
}

}  // namespace

void save_state(const std::filesystem::path& path, const StateDict& state) {
  atomic_write(path, [&state](const std::filesystem::path& temporary) { write_state(temporary, state); });
}

StateDict load_state(const std::filesystem::path& path) {
  return whole_read(path, [&] {
    verify_seal(path);
    return read_state(Hdf5File(path, Hdf5File::Mode::read));
  });
}

std::optional<LoadedState> newest_valid(std::span<const std::filesystem::path> newest_first) {
  for (const std::filesystem::path& path : newest_first) {
    try {
      return LoadedState{path, load_state(path)};
    } catch (const DamagedCheckpoint& error) {
      spdlog::warn("{}", error.what());
    }
  }
  if (newest_first.empty()) return std::nullopt;
  const auto others = std::count_if(newest_first.begin(), newest_first.end(), [](const std::filesystem::path& path) {
    return kind_of_file(path) != FileKind::checkpoint;
  });
  const std::filesystem::path& newest = newest_first.front();
  QN_CHECK(others < std::ssize(newest_first),
           "none of the {} files with names of checkpoints is one; the newest, {}, is {}: --fresh moves them aside and "
           "starts anew",
           others, newest.string(), description(kind_of_file(newest)));
  fail("all {} checkpoints are damaged{}, the newest is {}: --fresh moves them aside and starts anew",
       newest_first.size(), others > 0 ? fmt::format(" ({} of them are no checkpoints at all)", others) : "",
       newest.string());
}

}  // namespace qn
