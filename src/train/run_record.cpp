#include "train/run_record.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "core/file_io.h"
#include "core/text.h"
#include "train/checkpoint_seal.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "quantnoise-run";

fs::path record_path(const fs::path& folder) { return folder / "run.json"; }

std::string text_or_nothing(const StateDict& state, const std::string& name) {
  const auto entry = state.texts.find(name);
  return entry == state.texts.end() ? "" : entry->second;
}

}  // namespace

std::string new_run_id() {
  std::random_device random;
  return hex64(uint64_t{random()} << 32 | random());
}

std::optional<std::string> recorded_run(const fs::path& folder) {
  const fs::path path = record_path(folder);
  if (!fs::exists(path)) return std::nullopt;
  const std::vector<std::byte> bytes = read_file_bytes(path);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const Json record = Json::parse(text, text + bytes.size(), nullptr, false);
  if (record.is_object() && record.value("format", Json()) == kFormat && record.value("run", Json()).is_string())
    return record["run"].get<std::string>();
  spdlog::warn("{} does not say which run the folder is of: the newest checkpoint decides", path.string());
  return std::nullopt;
}

void record_run(const fs::path& folder, const std::string& run) {
  const std::time_t now = std::time(nullptr);
  const Json record{{"format", kFormat},
                    {"version", 1},
                    {"run", run},
                    {"recorded", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))}};
  atomic_write_text(record_path(folder), record.dump() + "\n");
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

void check_same_run(const StateDict& state, const fs::path& folder, bool quantize, const std::string& init_from) {
  const bool quantized = state.ints.contains("ipq/stages_done");
  QN_CHECK(quantized == quantize,
           "checkpoint.dir {} holds a run of `{}`, this is `{}`: name another folder (--set checkpoint.dir=...), or "
           "--fresh moves that run aside",
           folder.string(), quantized ? "quantize" : "train", quantize ? "quantize" : "train");
  const std::string source = text_or_nothing(state, "source");
  std::error_code ignored;
  if (source.empty() || init_from.empty() || !fs::exists(init_from, ignored)) return;
  QN_CHECK(source_identity(init_from) == source,
           "checkpoint.dir {} holds a run that started from other weights than {} has now: name another folder (--set "
           "checkpoint.dir=...), --fresh to move that run aside and start from these weights, or --set "
           "checkpoint.init_from= to go on with it",
           folder.string(), init_from);
}

}  // namespace qn
