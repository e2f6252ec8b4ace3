#include "train/checkpoint_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/file_io.h"

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

}  // namespace

CheckpointFolder::CheckpointFolder(const CheckpointConfig& config) : config_(config), dir_(config.dir) {
  std::error_code error;
  fs::create_directories(dir_, error);
  QN_CHECK(!error, "cannot create checkpoint.dir {}: {}", config.dir, error.message());
  remove_leftover_temporaries(dir_);
}

void CheckpointFolder::keep_as(const fs::path& name) const {
  // A hard link under a temporary name, then a rename: the name never points to half a file, and nothing is copied.
  const fs::path temporary = dir_ / (name.filename().string() + ".link");
  fs::remove(temporary);
  fs::create_hard_link(last(), temporary);
  fs::rename(temporary, name);
}

void CheckpointFolder::save(StateDict&& state, int64_t epoch, int64_t update, const SaveReason& reason) {
  std::vector<fs::path> names;
  if (reason.best) names.push_back(best());
  if (reason.epoch_end) names.push_back(dir_ / fmt::format("checkpoint{}.h5", epoch));
  if (reason.interval) names.push_back(dir_ / fmt::format("checkpoint_{}_{}.h5", epoch, update));
  writer_.save_async(last(), std::move(state), [this, names] {
    for (const fs::path& name : names) keep_as(name);
    prune();
  });
}

void CheckpointFolder::prune() const {
  std::vector<Numbered> epochs, intervals;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (const auto found = parse_name(entry.path())) (found->update < 0 ? epochs : intervals).push_back(*found);
  const auto keep_newest = [](std::vector<Numbered>& files, int64_t keep, auto key) {
    if (keep < 0) return;
    std::sort(files.begin(), files.end(), [&](const Numbered& a, const Numbered& b) { return key(a) > key(b); });
    for (size_t i = static_cast<size_t>(keep); i < files.size(); ++i) fs::remove(files[i].path);
  };
  keep_newest(epochs, config_.keep_epochs, [](const Numbered& n) { return n.epoch; });
  keep_newest(intervals, config_.keep_updates, [](const Numbered& n) { return n.update; });
}

std::optional<LoadedState> CheckpointFolder::newest() const {
  std::vector<std::pair<fs::file_time_type, fs::path>> others;
  for (const auto& entry : fs::directory_iterator(dir_))
    if (parse_name(entry.path()) || entry.path() == best()) others.emplace_back(entry.last_write_time(), entry.path());
  std::sort(others.rbegin(), others.rend());
  std::vector<fs::path> candidates;
  if (fs::exists(last())) candidates.push_back(last());
  for (const auto& [time, path] : others) candidates.push_back(path);
  return newest_valid(candidates);
}

}  // namespace qn
