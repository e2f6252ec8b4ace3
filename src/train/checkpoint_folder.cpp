#include "train/checkpoint_folder.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "core/fault_point.h"
#include "core/file_io.h"
#include "train/checkpoint_seal.h"
#include "train/event_file.h"
#include "train/run_record.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// Epoch and update of "checkpoint3.h5" (update -1) or "checkpoint_3_500.h5"; nothing for other names.
struct Numbered {
  int64_t epoch = -1, update = -1;
  fs::path path;
};

std::optional<int64_t> parse_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<Numbered> parse_name(const fs::path& path) {
  const std::string name = path.filename().string();
  constexpr std::string_view kPrefix = "checkpoint", kSuffix = ".h5";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  std::string_view middle(name);
  middle = middle.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  if (!middle.starts_with('_')) {
    const auto epoch = parse_number(middle);
    return epoch ? std::optional(Numbered{*epoch, -1, path}) : std::nullopt;
  }
  const size_t gap = middle.find('_', 1);
  if (gap == std::string_view::npos) return std::nullopt;
  const auto epoch = parse_number(middle.substr(1, gap - 1)), update = parse_number(middle.substr(gap + 1));
  return epoch && update ? std::optional(Numbered{*epoch, *update, path}) : std::nullopt;
}

/// "checkpoint_best_3_500.h5".
bool is_one_of_best(const fs::path& path) {
  std::string name = path.filename().string();
  constexpr std::string_view kBest = "_best";
  const size_t at = name.find(kBest);
  return at != std::string::npos && parse_name(name.erase(at, kBest.size())).value_or(Numbered{}).update >= 0;
}

/// What the validation of one of the best found, as a number that is lower for better ones; nothing of other files.
std::optional<double> badness_of(const fs::path& path) {
  try {
    const std::string text = read_sealed(path, "texts/validated");
    const size_t gap = text.find(' ');
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + std::min(gap, text.size()), value);
    if (gap == std::string::npos || error != std::errc{}) return std::nullopt;
    return text.substr(gap + 1) == "higher" ? -value : value;
  } catch (const Error&) {
    return std::nullopt;
  }
}

fs::path last_in(const fs::path& dir) { return dir / kLastCheckpoint; }
fs::path best_in(const fs::path& dir) { return dir / kBestCheckpoint; }

/// checkpoint_last.h5, then the others, newest first.
std::vector<fs::path> checkpoints_in(const fs::path& dir) {
  if (!fs::is_directory(dir)) return {};
  std::vector<std::pair<fs::file_time_type, fs::path>> others;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (!parse_name(entry.path()) && !is_one_of_best(entry.path()) && entry.path() != best_in(dir)) continue;
    const fs::file_time_type time = entry.last_write_time(error);
    if (error == std::errc::no_such_file_or_directory) continue;  // the run that has the folder has just removed it
    QN_CHECK(!error, "cannot read {}: {}", entry.path().string(), error.message());
    others.emplace_back(time, entry.path());
  }
  std::sort(others.rbegin(), others.rend());
  std::vector<fs::path> found;
  if (fs::exists(last_in(dir))) found.push_back(last_in(dir));
  for (const auto& [time, path] : others) found.push_back(path);
  return found;
}

/// Made if need be, before anything else is done to it.
fs::path made_folder(const std::string& name) {
  std::error_code error;
  fs::create_directories(name, error);
  QN_CHECK(!error, "cannot create checkpoint.dir {}: {}", name, error.message());
  return name;
}

void move_into(const fs::path& folder, const fs::path& file) {
  std::error_code error;
  if (!fs::exists(file, error)) return;
  rename_file(file, folder / file.filename(), "move a file of an earlier run to");
  fault_point("run.moved");
}

/// A new folder "discarded-20261127-190104" in `dir`, with a number where there is one already.
fs::path make_discarded_folder(const fs::path& dir) {
  const std::string name = fmt::format("{}{:%Y%m%d-%H%M%S}", kDiscardedPrefix, fmt::localtime(std::time(nullptr)));
  std::error_code error;
  for (int number = 1;; ++number) {
    const fs::path folder = dir / (number == 1 ? name : fmt::format("{}-{}", name, number));
    if (fs::create_directory(folder, error)) return folder;
    QN_CHECK(!error, "cannot create {}: {}", folder.string(), error.message());
  }
}

}  // namespace

std::vector<fs::path> resumable_checkpoints(const fs::path& dir) {
  std::vector<fs::path> found = checkpoints_in(dir);
  if (const auto current = recorded_run(dir))
    std::erase_if(found, [&](const fs::path& path) {
      const auto owner = run_of(path);
      return owner && *owner != *current;
    });
  return found;
}

std::optional<LoadedState> newest_checkpoint(const fs::path& dir) {
  const std::vector<fs::path> found = resumable_checkpoints(dir);
  if (fs::exists(run_record(dir)) && !recorded_run(dir))
    spdlog::warn("{} is damaged: the newest checkpoint decides which run the folder is of", run_record(dir).string());
  if (const size_t foreign = checkpoints_in(dir).size() - found.size(); foreign > 0)
    spdlog::warn("{} of the checkpoints in {} belong to other runs than its current one: they are not resumed", foreign,
                 dir.string());
  return newest_valid(found);
}

CheckpointFolder::CheckpointFolder(const CheckpointConfig& config, RetryDelay delay)
    : config_(config),
      dir_(made_folder(config.dir)),
      lock_(dir_, "checkpoint.dir"),
      writer_([this] { prune(); }, delay) {
  remove_leftover_temporaries(dir_);
}

void CheckpointFolder::continue_run(const LoadedState& from) {
  run_ = run_of(from.state);
  writer_.set_newest_good(from.state.integer("update"), from.path);
  if (recorded_run(dir_) != run_) record_run(dir_, run_);
}

/// Killed at any moment, the folder belongs to the old run or to the new one: run.json decides. The records go first,
/// so that those of a run without checkpoints are always its own.
void CheckpointFolder::begin_run() {
  run_ = new_run_id();
  record_run(dir_, run_);
  fault_point("run.recorded");
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::file_size(metrics(), error) > 0 && !error) files.push_back(metrics());  // all that a diverged run may leave
  for (const fs::path& file : checkpoints_in(dir_)) files.push_back(file);
  for (const fs::path& file : event_files(dir_)) files.push_back(file);
  if (const fs::path packed = dir_ / "model.safetensors"; fs::exists(packed)) files.push_back(packed);
  if (files.empty()) return;
  const fs::path discarded = make_discarded_folder(dir_);
  for (const fs::path& file : files) move_into(discarded, file);
  spdlog::info("{} file{} of an earlier run moved to {}; delete them if you do not need them", files.size(),
               files.size() == 1 ? "" : "s", discarded.string());
}

fs::path CheckpointFolder::last() const { return last_in(dir_); }
fs::path CheckpointFolder::best() const { return best_in(dir_); }

void CheckpointFolder::save(std::shared_ptr<StateDict> state, int64_t epoch, int64_t update, const SaveReason& reason,
                            std::shared_future<void> complete) {
  lock_.check_held();
  if (!run_.empty()) state->texts["run"] = run_;
  // Last comes last: what it says to be there (the best one) then is.
  std::vector<fs::path> names;
  if (reason.best) names.push_back(best());
  if (reason.among_best) {
    names.push_back(dir_ / fmt::format("checkpoint_best_{}_{}.h5", epoch, update));
    state->texts["validated"] =
        fmt::format("{} {}", reason.among_best->value, reason.among_best->higher_is_better ? "higher" : "lower");
  }
  if (reason.epoch_end) names.push_back(dir_ / fmt::format("checkpoint{}.h5", epoch));
  if (reason.interval) names.push_back(dir_ / fmt::format("checkpoint_{}_{}.h5", epoch, update));
  names.push_back(last());
  writer_.wait();
  // Of states whose saving failed and that are not the newest any more, only the best one has to be kept in memory.
  writer_.abandon([&](const fs::path& name, int64_t of_update) {
    if (parse_name(name) || is_one_of_best(name))
      spdlog::warn("{} is given up: update {} could not be saved", name.string(), of_update);
    return name != best();
  });
  writer_.save({std::move(state), update, std::move(names), std::move(complete)});
}

bool CheckpointFolder::failed_too_long() const {
  const double seconds = writer_.failing_seconds();
  return seconds > 0.0 && seconds >= config_.stop_after_failed_hours * 3600.0;
}

/// Deletes what is beyond keep_epochs and keep_updates. Files of other runs do not count.
void CheckpointFolder::prune() const {
  std::vector<Numbered> epochs, intervals;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (const auto found = parse_name(entry.path())) (found->update < 0 ? epochs : intervals).push_back(*found);
  const auto keep_newest = [this](std::vector<Numbered>& files, int64_t keep, auto key) {
    if (keep < 0 || std::ssize(files) <= keep) return;
    std::erase_if(files, [this](const Numbered& file) { return run_of(file.path) != run_; });
    std::sort(files.begin(), files.end(), [&](const Numbered& a, const Numbered& b) { return key(a) > key(b); });
    for (size_t i = static_cast<size_t>(keep); i < files.size(); ++i) {
      if (const std::error_code error = remove_file(files[i].path))
        spdlog::warn("cannot remove {}: {}", files[i].path.string(), error.message());
    }
  };
  keep_newest(epochs, config_.keep_epochs, [](const Numbered& n) { return n.epoch; });
  keep_newest(intervals, config_.keep_updates, [](const Numbered& n) { return n.update; });
  if (config_.keep_best > 0) prune_best();
}

void CheckpointFolder::prune_best() const {
  std::vector<std::pair<double, fs::path>> found;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (is_one_of_best(entry.path()) && run_of(entry.path()) == run_)
      if (const auto badness = badness_of(entry.path())) found.emplace_back(*badness, entry.path());
  std::sort(found.begin(), found.end());
  for (size_t i = static_cast<size_t>(config_.keep_best); i < found.size(); ++i)
    if (const std::error_code error = remove_file(found[i].second))
      spdlog::warn("cannot remove {}: {}", found[i].second.string(), error.message());
}

}  // namespace qn
