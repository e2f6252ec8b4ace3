#include "train/run_record.h"

#include <fmt/chrono.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "core/config.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/text.h"
#include "train/checkpoint_seal.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kRecordFormat = "quantnoise-run";
constexpr int64_t kRecordVersion = 1;

/// The whole file: the record and, as its last entry, the checksum of all before.
std::string record_text(Json record) {
  const std::string content = record.dump();
  record["checksum"] = hex64(hash_bytes(content.data(), content.size()));
  return record.dump() + "\n";
}

/// The record in a text of record_text(), every byte as it was written; nothing in any other text.
std::optional<Json> parse_record(std::string_view text) {
  Json record = Json::parse(text.begin(), text.end(), nullptr, false);
  if (!record.is_object() || record.value("format", Json()) != kRecordFormat) return std::nullopt;
  record.erase("checksum");
  if (record_text(record) != text) return std::nullopt;
  return record;
}

std::string text_or_nothing(const StateDict& state, const std::string& name) {
  const auto entry = state.texts.find(name);
  return entry == state.texts.end() ? "" : entry->second;
}

}  // namespace

std::string new_run_id() {
  std::random_device random;
  return hex64(uint64_t{random()} << 32 | random());
}

fs::path run_record(const fs::path& folder) { return folder / "run.json"; }

std::optional<std::string> recorded_run(const fs::path& folder) {
  const fs::path path = run_record(folder);
  if (!fs::exists(path)) return std::nullopt;
  const std::vector<std::byte> bytes = read_file_bytes(path);
  const auto record = parse_record({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!record) return std::nullopt;
  const Json version = record->value("version", Json()), run = record->value("run", Json());
  QN_CHECK(!version.is_number_integer() || version.get<int64_t>() <= kRecordVersion,
           "{} has format version {}, this program reads versions up to {}: use a newer quantnoise", path.string(),
           version.dump(), kRecordVersion);
  return run.is_string() ? std::optional(run.get<std::string>()) : std::nullopt;
}

void record_run(const fs::path& folder, const std::string& run) {
  const std::time_t now = std::time(nullptr);
  const Json record{{"format", kRecordFormat},
                    {"version", kRecordVersion},
                    {"run", run},
                    {"recorded", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))}};
  atomic_write_text(run_record(folder), record_text(record));
}

std::string run_of(const StateDict& state) { return text_or_nothing(state, "run"); }

std::optional<std::string> run_of(const fs::path& checkpoint) {
  try {
    return read_sealed(checkpoint, "texts/run");
  } catch (const DamagedCheckpoint&) {
    return std::nullopt;
  }
}

std::string source_identity(const fs::path& init_from) { return seal_checksum(init_from); }

void check_same_run(const StateDict& state, const CheckpointConfig& config, bool quantize) {
  const std::string &folder = config.dir, &init_from = config.init_from;
  const bool quantized = state.ints.contains("ipq/stages_done");
  QN_CHECK(quantized == quantize,
           "checkpoint.dir {} holds a run of `{}`, this is `{}`: name another folder (--set checkpoint.dir=...), or "
           "--fresh moves that run aside",
           folder, quantized ? "quantize" : "train", quantize ? "quantize" : "train");
  const std::string source = text_or_nothing(state, "source");
  std::error_code ignored;
  if (source.empty() || init_from.empty()) return;
  const auto layers = [](const std::string& kept) { return kept.empty() ? "all layers" : "layers '" + kept + "'"; };
  const std::string started = text_or_nothing(state, "source_layers");
  QN_CHECK(
      started == config.layers_to_keep,
      "checkpoint.dir {} holds a run that started from {} of its source, this names {} (checkpoint.layers_to_keep, "
      "--layers-to-keep): name another folder (--set checkpoint.dir=...), --fresh to move that run aside, or the "
      "same layers to go on with it",
      folder, layers(started), layers(config.layers_to_keep));
  if (!fs::exists(init_from, ignored)) return;
  QN_CHECK(
      source_identity(init_from) == source,
      "checkpoint.dir {} holds a run that started from other weights than {} has now: name another folder (--set "
      "checkpoint.dir=...), --fresh to move that run aside and start from these weights, or, to go on with it, name "
      "no weights: no --from, and --set 'checkpoint.init_from=\"\"'",
      folder, init_from);
}

void warn_of_changes(const StateDict& state, const std::string& config_text) {
  constexpr std::string_view kNew = ": (not set) -> ";
  std::vector<std::string> added;
  for (std::string& line : diff_config(state.text("config"), config_text)) {
    const size_t at = line.find(kNew);
    if (at == std::string::npos)
      spdlog::warn("changed since the checkpoint: {}", line);
    else
      added.push_back(line.replace(at, kNew.size(), " = "));
  }
  if (!added.empty()) spdlog::warn("not in the checkpoint's configuration: {}", fmt::join(added, ", "));
}

}  // namespace qn
