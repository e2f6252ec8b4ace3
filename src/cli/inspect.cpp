#include <fmt/ranges.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "compress/packed_origin.h"
#include "core/text.h"
#include "tasks/model_file.h"
#include "train/checkpoint_file.h"

namespace qn::cli {
namespace {

using Json = nlohmann::ordered_json;

void print_origin(const PackedOrigin& origin) {
  std::cout << fmt::format("made from a file of {}\n", format_bytes(origin.bytes));
  for (const auto& [key, value] : origin.metadata) std::cout << fmt::format("  {}: {}\n", key, value);
  for (const auto& [name, weight] : origin.weights)
    std::cout << fmt::format("  {}: {} {} [{}]\n", name, fmt::join(weight.names, ", "), name_of(weight.type),
                             fmt::join(weight.shape, ", "));
}

void inspect_packed(const std::string& path, bool json) {
  const SafetensorsReader file(path);
  check_packed_format(file, path);
  const SizeReport report = packed_sizes(file);
  QN_ASSERT(report.total_bytes() == file.file_size(), "{} bytes reported, {} on disk", report.total_bytes(),
            file.file_size());
  if (json) {
    Json result{{"file", path}, {"kind", "packed"}, {"bytes", file.file_size()}, {"ratio", report.ratio()}};
    result["metadata"] = file.metadata();
    result["sizes"] = Json::parse(report.to_json());
    std::cout << result.dump() << std::endl;
    return;
  }
  std::cout << report.to_table();
  std::cout << fmt::format("{} bytes on disk; {}\n\n", group_digits(static_cast<int64_t>(file.file_size())),
                           file.has_checksums() ? "every checksum holds" : "no checksums");
  if (const std::string words = describe_vocabulary(file); !words.empty())
    std::cout << fmt::format("carries its vocabulary: {}\n\n", words);
  const auto is_long = [](const std::string& key) { return key == "model" || key == kOriginKey || key == kChecksums; };
  for (const auto& [key, value] : file.metadata())
    if (!is_long(key)) std::cout << fmt::format("{}: {}\n", key, value);
  if (const auto origin = packed_origin(file, path)) {
    print_origin(*origin);
    return;
  }
  std::cout << "model:\n" << file.metadata_at("model");
}

void inspect_checkpoint(const std::string& path, bool json) {
  const StateDict state = load_state(path);
  uint64_t bytes = 0;
  Json tensors = Json::array();
  for (const auto& [name, tensor] : state.tensors) {
    bytes += tensor.view().bytes();
    tensors.push_back({{"name", name},
                       {"dtype", name_of(tensor.view().dtype)},
                       {"shape", tensor.view().shape.to_vector()},
                       {"bytes", tensor.view().bytes()}});
  }
  if (json) {
    const Json result{{"file", path},           {"kind", "checkpoint"}, {"ints", state.ints},
                      {"floats", state.floats}, {"texts", state.texts}, {"tensors", tensors}};
    std::cout << result.dump() << std::endl;
    return;
  }
  for (const Json& t : tensors)
    std::cout << fmt::format("{:<72} {:>4} {:>18} {:>12}\n", t["name"].get<std::string>(),
                             t["dtype"].get<std::string>(), t["shape"].dump(),
                             format_bytes(t["bytes"].get<uint64_t>()));
  std::cout << fmt::format("\n{} tensors, {}; every checksum holds\n", tensors.size(), format_bytes(bytes));
  for (const auto& [name, value] : state.ints)
    if (!name.starts_with("optimizer/")) std::cout << fmt::format("{}: {}\n", name, value);
  for (const auto& [name, value] : state.floats) std::cout << fmt::format("{}: {}\n", name, value);
  for (const auto& [name, value] : state.texts)
    std::cout << fmt::format("{}:{}{}\n", name, name == "config" ? "\n" : " ", value);
}

/// Throws for what is damaged; says so where there is nothing to tell it by.
void check_file(const std::string& path, bool json) {
  const ModelFileKind kind = kind_of_model_file(path);
  bool checksums = true;
  size_t tensors = 0;
  if (kind == ModelFileKind::checkpoint) {
    tensors = load_state(path).tensors.size();
  } else {
    const SafetensorsReader file(path);
    check_packed_format(file, path);
    packed_sizes(file);  // whether the quantized weights are complete
    describe_vocabulary(file);
    checksums = file.has_checksums();
    tensors = file.tensors().size();
  }
  if (json)
    std::cout << Json{{"file", path}, {"kind", name_of(kind)}, {"checksums", checksums}, {"ok", true}}.dump() << '\n';
  else if (checksums)
    std::cout << fmt::format("{}: ok, the checksums of all {} tensors and of everything beside them hold\n", path,
                             tensors);
  else
    std::cout << fmt::format(
        "{}: {} tensors, complete; the file has no checksums (format version 1 or 2), so changed values cannot be "
        "told\n",
        path, tensors);
  std::cout.flush();
}

}  // namespace

Command add_inspect(CLI::App& app) {
  auto file = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false), check = std::make_shared<bool>(false);
  app.add_option("file", *file, "Packed model (.safetensors) or checkpoint (.h5)")->required();
  app.add_flag("--json", *json, "Print one JSON object");
  app.add_flag("--check", *check, "Only say whether the file is intact: ok, or status 1 and what is damaged");
  app.footer("For a packed model the total is the file's size: codes, centroids, dense tensors and header.");
  return [file, json, check](Communicator& comm) {
    if (!comm.is_root()) return kSuccess;
    if (*check) {
      check_file(*file, *json);
      return kSuccess;
    }
    if (kind_of_model_file(*file) == ModelFileKind::packed)
      inspect_packed(*file, *json);
    else
      inspect_checkpoint(*file, *json);
    return kSuccess;
  };
}

}  // namespace qn::cli
