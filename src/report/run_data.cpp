#include "report/run_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/config_values.h"
#include "core/error.h"
#include "core/file_io.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_seal.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kBest = "best_";

double number_or_nan(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  return kNaN;
}

double number_at(const Json& record, const char* key, double otherwise = 0.0) {
  const auto found = record.find(key);
  return found != record.end() && found->is_number() ? found->get<double>() : otherwise;
}

std::string text_at(const Json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_string() ? found->get<std::string>() : std::string();
}

NamedNumbers numbers_at(const Json& record, const char* key) {
  NamedNumbers numbers;
  const auto found = record.find(key);
  if (found == record.end() || !found->is_object()) return numbers;
  for (const auto& [name, value] : found->items()) numbers[name] = number_or_nan(value);
  return numbers;
}

std::vector<std::pair<std::string, double>> all_numbers(const Json& record) {
  std::vector<std::pair<std::string, double>> numbers;
  for (const auto& [name, value] : record.items())
    if (value.is_number() || value.is_boolean() || value.is_null()) numbers.emplace_back(name, number_or_nan(value));
  return numbers;
}

std::string start_text(const Json& r) {
  const std::string where =
      fmt::format("{} rank{} on {}, version {}", number_at(r, "ranks", 1.0),
                  number_at(r, "ranks", 1.0) == 1.0 ? "" : "s", text_at(r, "host"), text_at(r, "program"));
  return (r.value("resumed", Json()) == true ? "resumed; " : "began; ") + where;
}

std::string end_text(const Json& r) {
  const std::string message = text_at(r, "message");
  return text_at(r, "outcome") + (message.empty() ? "" : ": " + message);
}

void take_start(const Json& r, RunData& run) {
  run.command = text_at(r, "command");
  run.config = text_at(r, "config");
  run.max_updates = number_at(r, "max_updates");
  run.parameters = numbers_at(r, "parameters");
  if (!text_at(r, "samples").empty()) run.samples = text_at(r, "samples");
}

/// Of one of the kinds that come with an update, without which it has no place; or of any other kind.
bool has_its_place(const Json& r, const std::string& kind) {
  const bool placed = kind == "train" || kind == "valid" || kind == "stage";
  return !placed || std::isfinite(number_at(r, "update", kNaN));
}

/// False: this is no record.
bool take(const Json& r, RunData& run) {
  const std::string kind = text_at(r, "kind");
  if (!has_its_place(r, kind)) return false;
  const auto event = [&](std::string text) {
    run.events.push_back({kind, number_at(r, "update"), number_at(r, "time"), std::move(text)});
  };
  if (kind == "train") {
    run.train.add(all_numbers(r));
  } else if (kind == "valid") {
    run.valid.add(all_numbers(r));
  } else if (kind == "stage") {
    run.stage.add(all_numbers(r));
  } else if (kind == "kmeans") {
    run.kmeans.push_back({static_cast<int64_t>(number_at(r, "stage")), static_cast<int64_t>(number_at(r, "iteration")),
                          numbers_at(r, "objective")});
  } else if (kind == "packed") {
    run.packed = {};
    run.packed.add(all_numbers(r));
    run.packed_file = text_at(r, "file");
    run.packed_bytes = numbers_at(r, "bytes_of_groups");
  } else if (kind == "start") {
    take_start(r, run);
    event(start_text(r));
  } else if (kind == "end") {
    event(end_text(r));
  } else if (kind == "spike" || kind == "rollback") {
    event(text_at(r, "message"));
  }
  return true;
}

void read_metrics(const fs::path& path, RunData& run) {
  const std::vector<std::byte> bytes = read_file_bytes(path);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = text.substr(start, end - start);
    start = end + 1;
    if (line.empty()) continue;
    const Json record = Json::parse(line.begin(), line.end(), nullptr, false);
    const bool good = record.is_object() && take(record, run);
    if (!good && end < text.size()) ++run.unreadable;  // the last line may be under way
  }
}

/// What older programs have not recorded, from the newest checkpoint that can be read.
void complete_from_checkpoint(RunData& run) {
  for (const fs::path& path : resumable_checkpoints(run.folder)) {
    try {
      run.config = read_sealed(path, "texts/config");
      return;
    } catch (const Error&) {
      // another one
    }
  }
}

/// Ends of the path, one part more than is needed to be unlike the others.
std::string path_end(const fs::path& path, size_t parts) {
  fs::path end;
  const fs::path whole = (fs::absolute(path) / "").lexically_normal().parent_path();
  const auto count = static_cast<size_t>(std::distance(whole.begin(), whole.end()));
  size_t i = 0;
  for (const fs::path& part : whole)
    if (i++ + parts >= count) end /= part;
  return end.string();
}

}  // namespace

void RecordTable::add(const std::vector<std::pair<std::string, double>>& numbers) {
  for (const auto& [name, value] : numbers) {
    auto [column, is_new] = columns_.try_emplace(name);
    if (is_new) names_.push_back(name);
    column->second.resize(rows_, kNaN);
    column->second.push_back(value);
  }
  ++rows_;
  for (auto& [name, column] : columns_) column.resize(rows_, kNaN);
}

const std::vector<double>& RecordTable::column(const std::string& name) const {
  static const std::vector<double> none;
  const auto found = columns_.find(name);
  return found == columns_.end() ? none : found->second;
}

double RecordTable::last(const std::string& name) const {
  const std::vector<double>& values = column(name);
  return values.empty() ? kNaN : values.back();
}

std::vector<std::string> RunData::metrics() const {
  std::vector<std::string> found;
  const std::set<std::string> others{"update", "epoch", "training_seconds", "seconds", "time", samples};
  for (const std::string& column : valid.names())
    if (!others.contains(column) && !column.starts_with(kBest)) found.push_back(column);
  const std::string first = decisive();
  std::stable_partition(found.begin(), found.end(), [&](const std::string& metric) { return metric == first; });
  return found;
}

std::string RunData::decisive() const {
  for (const std::string& column : valid.names())
    if (column.starts_with(kBest)) return column.substr(std::string_view(kBest).size());
  return {};
}

double RunData::seconds_at(double update) const {
  const std::vector<double>& updates = train.column("update");
  const auto after = std::upper_bound(updates.begin(), updates.end(), update);
  if (after == updates.begin() || train_seconds.empty()) return 0.0;
  return train_seconds[static_cast<size_t>(after - updates.begin()) - 1];
}

RunData read_run(const fs::path& folder) {
  RunData run;
  run.folder = folder;
  std::error_code error;
  QN_CHECK(fs::exists(folder, error), "there is no folder {}: name a run's (checkpoint.dir)", folder.string());
  QN_CHECK(fs::is_directory(folder, error), "{} is no folder: name a run's (checkpoint.dir)", folder.string());
  const fs::path metrics = folder / "metrics.jsonl";
  QN_CHECK(
      fs::exists(metrics, error),
      "{} has no metrics.jsonl: it is no run's folder, or its run has not begun yet; name what checkpoint.dir of a "
      "run names",
      folder.string());
  read_metrics(metrics, run);
  run.health = look_at_run(folder);
  if (run.config.empty()) complete_from_checkpoint(run);
  if (run.command.empty()) run.command = run.stage.rows() > 0 ? "quantize" : "train";
  double seconds = 0.0;
  const std::vector<double>& took = run.train.column("seconds");  // of all rows, or none
  for (size_t row = 0; row < run.train.rows(); ++row)
    run.train_seconds.push_back(seconds += row < took.size() && std::isfinite(took[row]) ? took[row] : 0.0);
  return run;
}

std::vector<RunData> read_runs(const std::vector<fs::path>& folders) {
  std::vector<RunData> runs;
  for (const fs::path& folder : folders) runs.push_back(read_run(folder));
  constexpr size_t kMostParts = 8;
  for (size_t parts = 1; parts <= kMostParts; ++parts) {
    std::set<std::string> names;
    for (RunData& run : runs) names.insert(run.name = path_end(run.folder, parts));
    if (names.size() == runs.size()) break;
  }
  return runs;
}

std::vector<ConfigDifference> config_differences(const std::vector<RunData>& runs) {
  std::vector<std::vector<std::pair<std::string, std::string>>> all;
  for (const RunData& run : runs) {
    try {
      all.push_back(config_values(run.config));
    } catch (const Error&) {
      all.emplace_back();  // of another program: nothing to compare
    }
  }
  std::vector<ConfigDifference> differences;
  std::set<std::string> seen;
  for (const auto& values : all)
    for (const auto& [key, value] : values) {
      if (!seen.insert(key).second) continue;
      ConfigDifference difference{key, {}};
      bool alike = true;
      for (const auto& of_run : all) {
        const auto found =
            std::find_if(of_run.begin(), of_run.end(), [&](const auto& leaf) { return leaf.first == key; });
        difference.values.push_back(found == of_run.end() ? "" : found->second);
        alike = alike && (of_run.empty() || (found != of_run.end() && same_config_value(found->second, value)));
      }
      if (!alike) differences.push_back(std::move(difference));
    }
  return differences;
}

}  // namespace qn
