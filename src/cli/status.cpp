#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/text.h"
#include "report/run_health.h"
#include "train/checkpoint_folder.h"
#include "train/progress.h"

namespace qn::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The newest checkpoint, and when it was written: by the clock of the file system, or as the run has told.
struct Saved {
  fs::path path;
  double time = 0.0;
  int64_t update = -1;  ///< -1: nobody has told
};
std::optional<Saved> newest_saved(const fs::path& folder) {
  std::optional<Saved> newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("checkpoint") || entry.path().extension() != ".h5") continue;
    const auto written = fs::last_write_time(entry.path(), error);
    if (error) continue;
    const double time =
        std::chrono::duration<double>(fs::file_time_type::clock::to_sys(written).time_since_epoch()).count();
    if (!newest || time > newest->time) newest = {entry.path(), time, -1};
  }
  return newest;
}

/// As the run has told it, as long as it lives: the newest file may be one that it does not know yet to be complete.
/// Behind a run that is gone the newest file is what there is.
std::optional<Saved> last_saved(const fs::path& folder, const RunHealth& health) {
  std::optional<Saved> saved = newest_saved(folder);
  if (!saved || !health.record || health.record->saved_update < 0) return saved;
  const StatusRecord& r = *health.record;
  const bool lives =
      health.state == HealthState::running || health.state == HealthState::silent || health.state == HealthState::stuck;
  std::error_code error;
  const fs::path told = folder / r.saved_file;
  // A checkpoint may have several names.
  if (fs::exists(told, error) && (lives || fs::equivalent(told, saved->path, error)))
    return Saved{told, r.saved > 0.0 ? r.saved : saved->time, r.saved_update};
  return saved;
}

std::string line(const char* title, const std::string& text) { return fmt::format("  {:<11} {}\n", title, text); }

std::string progress_text(const StatusRecord& r) {
  std::string text = group_digits(r.update);
  if (r.max_updates > 0)
    text += fmt::format(" of {} ({:.1f} %)", group_digits(r.max_updates),
                        100.0 * static_cast<double>(r.update) / static_cast<double>(r.max_updates));
  if (r.epoch > 0) text += fmt::format(", epoch {}", r.epoch);
  if (!r.latest.empty()) text += " | " + r.latest;
  return text;
}

std::string phase_text(const StatusRecord& r) {
  std::string text = r.phase;
  if (r.parts > 0) text += fmt::format(", {} of {}", group_digits(r.part), group_digits(r.parts));
  if (r.stages > 0) text += fmt::format("; {} of {} stages quantized", r.stage, r.stages);
  return text;
}

std::string left_text(const StatusRecord& r, double now) {
  const double left = std::max(r.seconds_left - std::max(now - r.written, 0.0), 0.0);
  return fmt::format("about {}, until {}", format_duration(left), format_clock(now + left));
}

void print(const fs::path& folder, const RunHealth& health, const std::optional<Saved>& saved, double now) {
  std::string text = folder.string() + ":\n" + line("health", health.text);
  if (const auto& record = health.record) {
    const StatusRecord& r = *record;
    text += line("run", fmt::format("{} (quantnoise {}, {} rank{}, process {} on {})", r.command, r.program, r.ranks,
                                    r.ranks == 1 ? "" : "s", r.pid, r.host));
    const bool runs = r.condition == RunCondition::running;
    if (runs && !r.phase.empty()) text += line("phase", phase_text(r));
    text += line("update", progress_text(r));
    if (health.state == HealthState::running && r.seconds_left >= 0.0) text += line("time left", left_text(r, now));
  } else if (health.holder) {
    text += line("run", health.holder->owner.describe());
  }
  if (saved) {
    text += line(
        "checkpoint",
        fmt::format("{}{} ago ({})", saved->update >= 0 ? fmt::format("update {}, ", group_digits(saved->update)) : "",
                    format_duration(std::max(now - saved->time, 0.0)), saved->path.filename().string()));
  } else {
    text += line("checkpoint", "none yet");
  }
  std::cout << text << std::flush;
}

void print_json(const fs::path& folder, const RunHealth& health, const std::optional<Saved>& saved, double now) {
  Json json{{"folder", folder.string()}, {"health", name_of(health.state)}, {"text", health.text}};
  if (health.record) json["status"] = Json::parse(to_json(*health.record));
  if (saved) json["checkpoint"] = {{"file", saved->path.filename().string()}, {"age_seconds", now - saved->time}};
  std::cout << json.dump() << std::endl;
}

}  // namespace

Command add_status(CLI::App& app) {
  auto folder = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  app.add_option("run", *folder, "Folder of a run (checkpoint.dir)")->required();
  app.add_flag("--json", *json, "Print one JSON object");
  app.footer(
      "What a run does, how far it is, when it will be done and whether it is well: while it runs or afterwards, on "
      "any\n"
      "machine that sees the folder. Nothing is asked of the run itself. Where its file has not changed for half a\n"
      "minute, it is watched for some seconds before it counts as silent.\n"
      "Exit codes: 0 running or finished; 3 stopped by a signal, all saved; 4 not responding; 5 ended with an error,\n"
      "or its process is gone; 1 there is no run in that folder, 2 wrong usage.");
  return [folder, json](Communicator& comm) {
    if (!comm.is_root()) return kSuccess;
    const fs::path path = *folder;
    std::error_code error;
    QN_CHECK(fs::exists(path, error), "there is no folder {}: name a run's (checkpoint.dir)", path.string());
    QN_CHECK(fs::is_directory(path, error), "{} is no folder: name a run's (checkpoint.dir)", path.string());
    const RunHealth health = look_at_run(path);
    const auto saved = last_saved(path, health);
    QN_CHECK(saved || health.record || health.holder || fs::exists(path / "metrics.jsonl", error),
             "there is no run in {}: name what checkpoint.dir of a run names", path.string());
    (*json ? print_json : print)(path, health, saved, unix_time());
    return exit_code_of(health.state);
  };
}

}  // namespace qn::cli
