#include "train/checkpoint_file.h"

#include <spdlog/spdlog.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/file_io.h"
#include "core/hdf5_file.h"
#include "core/text.h"

namespace qn {
namespace {

constexpr const char* kFormat = "quantnoise-checkpoint";
constexpr int64_t kVersion = 1;
const std::string kRoot, kTensors = "tensors", kTexts = "texts", kInts = "ints", kFloats = "floats";

std::string checksum_of(const Tensor& tensor) { return hex64(hash_bytes(tensor.data, tensor.bytes())); }
std::string checksum_of(const std::string& text) { return hex64(hash_bytes(text.data(), text.size())); }

/// Everything but the data itself in one text: its checksum ties names, types, shapes and numbers together, so that
/// entries can be neither altered nor lost. Numbers enter as bits; names by their length, so that none can pose as two.
std::string manifest(const StateDict& state) {
  std::string text;
  const auto append = [&text](char kind, const std::string& name, const std::string& value) {
    text += fmt::format("{}{} {} {}\n", kind, name.size(), name, value);
  };
  for (const auto& [name, tensor] : state.tensors) {
    const Tensor& view = tensor.view();
    append('t', name, fmt::format("{} {} {}", name_of(view.dtype), view.shape.to_string(), checksum_of(view)));
  }
  for (const auto& [name, value] : state.texts) append('s', name, checksum_of(value));
  for (const auto& [name, value] : state.ints) append('i', name, std::to_string(value));
  for (const auto& [name, value] : state.floats) append('f', name, hex64(std::bit_cast<uint64_t>(value)));
  return text;
}

/// HDF5 reads '/' as a group and skips empty and "." components, so two such names could mean one dataset.
void check_name(const std::string& name) {
  const std::string framed = "/" + name + "/";
  QN_ASSERT(framed.find("//") == std::string::npos && framed.find("/./") == std::string::npos &&
                name.find('\0') == std::string::npos,
            "'{}' cannot be the name of a checkpoint entry", name);
}

void write_checked(Hdf5File& file, const std::string& group, const std::string& name, const Tensor& tensor) {
  check_name(name);
  const std::string dataset = group + "/" + name;
  file.write_tensor(dataset, tensor);
  file.write_attribute(dataset, "xxh3", checksum_of(tensor));
}

void write_state(const std::filesystem::path& path, const StateDict& state) {
  Hdf5File file(path, Hdf5File::Mode::create);
  for (const std::string& group : {kTensors, kTexts, kInts, kFloats}) file.create_group(group);
  for (const auto& [name, tensor] : state.tensors) write_checked(file, kTensors, name, tensor.view());
  for (const auto& [name, text] : state.texts) {
    write_checked(file, kTexts, name,
                  view_of(reinterpret_cast<const uint8_t*>(text.data()), {static_cast<int64_t>(text.size())}));
  }
  for (const auto& [name, value] : state.ints) file.write_attribute(kInts, name, value);
  for (const auto& [name, value] : state.floats) file.write_attribute(kFloats, name, value);
  file.write_attribute(kRoot, "format", std::string(kFormat));
  file.write_attribute(kRoot, "version", kVersion);
  file.write_attribute(kRoot, "checksum", checksum_of(manifest(state)));
  file.flush();
  file.write_attribute(kRoot, "complete", int64_t{1});
  file.close();
}

OwnedTensor read_checked(const Hdf5File& file, const std::string& dataset) {
  OwnedTensor tensor = file.read_tensor(dataset);
  const std::string expected = file.string_attribute(dataset, "xxh3"), found = checksum_of(tensor.view());
  QN_CHECK(expected == found, "dataset '{}' has the checksum {} instead of {}", dataset, found, expected);
  return tensor;
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
    state.tensors.emplace(name, read_checked(file, dataset));
  });
  for_each_dataset(file, kTexts, kTexts, [&](const std::string& name, const std::string& dataset) {
    const OwnedTensor bytes = read_checked(file, dataset);
    QN_CHECK(bytes.view().dtype == DType::u8, "dataset '{}' does not hold a text", dataset);
    const std::span<uint8_t> text = bytes.view().span<uint8_t>();
    state.texts.emplace(name, std::string(text.begin(), text.end()));
  });
  for (const std::string& name : file.attributes(kInts)) state.ints[name] = file.int_attribute(kInts, name);
  for (const std::string& name : file.attributes(kFloats)) state.floats[name] = file.float_attribute(kFloats, name);
  const std::string expected = file.string_attribute(kRoot, "checksum"), found = checksum_of(manifest(state));
  QN_CHECK(expected == found, "its list of entries has the checksum {} instead of {}", found, expected);
  return state;
}

/// The format version; 0 for an HDF5 file of another kind.
int64_t version_of(const Hdf5File& file) {
  const bool ours = file.has_attribute(kRoot, "format") && file.string_attribute(kRoot, "format") == kFormat;
  return ours ? file.int_attribute(kRoot, "version") : 0;
}

}  // namespace

void save_state(const std::filesystem::path& path, const StateDict& state) {
  atomic_write(path, [&state](const std::filesystem::path& temporary) { write_state(temporary, state); });
}

StateDict load_state(const std::filesystem::path& path) {
  QN_CHECK(std::ifstream(path).good(), "cannot open checkpoint {}: {}", path.string(), std::strerror(errno));
  int64_t version = 0;
  try {
    const Hdf5File file(path, Hdf5File::Mode::read);
    version = version_of(file);
    if (version > 0 && version <= kVersion) {
      QN_CHECK(file.has_attribute(kRoot, "complete"), "it was not written to its end");
      return read_state(file);
    }
  } catch (const Error& error) {
    throw DamagedCheckpoint(fmt::format("checkpoint {} is damaged or incomplete: {}; use an older checkpoint",
                                        path.string(), error.what()));
  }
  QN_CHECK(version > 0, "{} is not a quantnoise checkpoint", path.string());
  fail("checkpoint {} has format version {}, this program reads versions up to {}: use a newer quantnoise",
       path.string(), version, kVersion);
}

std::optional<LoadedState> newest_valid(std::span<const std::filesystem::path> newest_first) {
  for (const std::filesystem::path& path : newest_first) {
    try {
      return LoadedState{path, load_state(path)};
    } catch (const DamagedCheckpoint& error) {
      spdlog::warn("{}", error.what());
    }
  }
  QN_CHECK(newest_first.empty(), "all {} checkpoints are damaged, the newest is {}: remove them to start afresh",
           newest_first.size(), newest_first.front().string());
  return std::nullopt;
}

CheckpointWriter::~CheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
  }
}

void CheckpointWriter::save_async(const std::filesystem::path& path, StateDict&& state,
                                  std::function<void()> when_written) {
  wait();
  const auto policy = Hdf5File::thread_safe() ? std::launch::async : std::launch::deferred;
  in_flight_ = std::async(policy, [path, snapshot = std::move(state), done = std::move(when_written)] {
    save_state(path, snapshot);
    if (done) done();
  });
  if (policy == std::launch::deferred) wait();
}

void CheckpointWriter::wait() {
  if (in_flight_.valid()) in_flight_.get();
}

}  // namespace qn
