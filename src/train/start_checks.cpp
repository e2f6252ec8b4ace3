#include "train/start_checks.h"

#include <fmt/ranges.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/folder_lock.h"
#include "train/checkpoint_folder.h"
#include "train/run_status.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr char kConfigurationMark = '\x01', kSeparator = '\x02';

/// Throws qn::Error that begins with `what` where no file can be made in `folder`.
void check_writable(const fs::path& folder, const std::string& what) {
  if (access(folder.c_str(), W_OK | X_OK) == 0) return;
  QN_CHECK(errno != EROFS, "{}: the file system of {} is read-only; name a folder on another one", what,
           folder.string());
  throw Error(fmt::format("{}: no permission to write in {}", what, folder.string()));
}

/// The kernel's own file systems (/proc, /sys) take no files, not even from root.
bool is_of_kernel(const fs::path& folder) {
  struct statfs found {};
  if (statfs(folder.c_str(), &found) != 0) return false;
  constexpr int64_t kKinds[] = {PROC_SUPER_MAGIC,    SYSFS_MAGIC,   CGROUP_SUPER_MAGIC,
                                CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, DEVPTS_SUPER_MAGIC};
  return std::find(std::begin(kKinds), std::end(kKinds), static_cast<int64_t>(found.f_type)) != std::end(kKinds);
}

/// Where a start with --fresh has put this file, the newest if there are several; empty if none has.
fs::path moved_aside(const fs::path& file) {
  fs::path newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fs::absolute(file).parent_path(), error)) {
    const fs::path moved = entry.path() / file.filename();
    const bool discarded = entry.path().filename().string().starts_with(kDiscardedPrefix);
    if (discarded && fs::exists(moved, error) && moved > newest) newest = moved;
  }
  return newest;
}

bool is_run_file(const std::string& name) {
  return (name.starts_with("checkpoint") && name.ends_with(".h5")) || name == "run.json" || name == "metrics.jsonl" ||
         name == RunStatus::kFileName || name == FolderLock::kFileName;
}

}  // namespace

bool ProblemList::collect(const std::function<void()>& check, bool of_configuration) {
  try {
    check();
    return true;
  } catch (const UsageError& error) {
    problems_.push_back({error.what(), true});
  } catch (const Error& error) {
    problems_.push_back({error.what(), of_configuration});
  }
  return false;
}

void ProblemList::gather(Communicator& comm) {
  std::string own;
  for (const Problem& p : problems_) {
    if (p.of_configuration) own += kConfigurationMark;
    own += p.text + kSeparator;
  }
  const std::vector<std::string> all = comm.all_gather(own);
  problems_.clear();
  for (size_t rank = 0; rank < all.size(); ++rank)
    for (size_t begin = 0, end; (end = all[rank].find(kSeparator, begin)) != std::string::npos; begin = end + 1) {
      const bool of_configuration = all[rank][begin] == kConfigurationMark;
      const std::string text =
          all[rank].substr(begin + (of_configuration ? 1 : 0), end - begin - (of_configuration ? 1 : 0));
      const auto same = [&](const Problem& p) { return p.text == text; };
      if (std::none_of(problems_.begin(), problems_.end(), same)) problems_.push_back({text, of_configuration});
    }
}

bool ProblemList::of_configuration() const {
  return std::any_of(problems_.begin(), problems_.end(), [](const Problem& p) { return p.of_configuration; });
}

std::vector<std::string> ProblemList::texts() const {
  std::vector<std::string> texts;
  for (const Problem& p : problems_) texts.push_back(p.text);
  return texts;
}

void ProblemList::fail_if_any() const {
  if (problems_.empty()) return;
  const std::string text = fmt::format("{}", fmt::join(texts(), "\n"));
  if (of_configuration()) throw UsageError(text);
  throw Error(text);
}

fs::path existing_folder(const fs::path& folder) {
  fs::path place = fs::absolute(folder).lexically_normal();
  std::error_code error;
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  return place;
}

void check_folder(const fs::path& folder, const std::string& key) {
  const fs::path place = existing_folder(folder);
  QN_CHECK_USAGE(fs::is_directory(place), "{} {}: {} is a file, not a folder", key, folder.string(), place.string());
  QN_CHECK_USAGE(!is_of_kernel(place), "{} {}: {} is of the kernel's own file system and takes no files", key,
                 folder.string(), place.string());
  check_writable(place, key + " " + folder.string());
}

void check_output_file(const fs::path& path, const std::string& option, FileKind written,
                       const std::vector<fs::path>& inputs, const fs::path& run_folder) {
  const std::string named = fmt::format("{} {}", option, path.string());
  const std::string obstacle = obstacle_at(path);
  QN_CHECK_USAGE(obstacle.empty(), "{}: this is {}; name a regular file", named, obstacle);
  std::error_code error;
  for (const fs::path& input : inputs)
    QN_CHECK_USAGE(!fs::equivalent(path, input, error), "{}: this is the file to read from; name another one", named);
  const fs::path target = fs::absolute(output_target(path));
  const FileKind kind = fs::exists(target, error) ? kind_of_file(target) : FileKind::empty;
  QN_CHECK_USAGE(kind == FileKind::empty || kind == written,
                 "{}: this is {}, which would be overwritten; name another file", named, description(kind));
  const fs::path folder = target.parent_path();
  const fs::path run =
      run_folder.empty() ? fs::path() : (fs::absolute(run_folder) / "").lexically_normal().parent_path();
  QN_CHECK_USAGE(!is_run_file(target.filename().string()),
                 "{}: a run keeps a file of this name in its folder; name another one", named);
  if (!run_folder.empty() && fs::weakly_canonical(folder, error) == fs::weakly_canonical(run, error)) return;
  QN_CHECK_USAGE(fs::is_directory(folder, error), "{}: there is no folder {}; make it first", named, folder.string());
  check_writable(folder, named);
}

void check_init_from(const CheckpointConfig& config, bool quantize, bool resume) {
  std::error_code error;
  if (resume && !resumable_checkpoints(config.dir).empty()) return;  // it has begun already
  const std::string& source = config.init_from;
  QN_CHECK_USAGE(!quantize || !source.empty(),
                 "quantize needs the trained model: --from CHECKPOINT (or checkpoint.init_from)");
  QN_CHECK_USAGE(
      !source.empty() || config.layers_to_keep.empty(),
      "checkpoint.layers_to_keep (--layers-to-keep) says which layers of a trained model to go on with: name its "
      "checkpoint (checkpoint.init_from{})",
      quantize ? ", --from" : "");
  if (source.empty()) return;
  if (!fs::exists(source, error)) {
    const fs::path moved = moved_aside(source);
    fail_usage("checkpoint.init_from (--from): there is no file {}{}", source,
               moved.empty()
                   ? ""
                   : fmt::format("; a start with --fresh has moved one of this name to {}: name that", moved.string()));
  }
  QN_CHECK_USAGE(fs::is_regular_file(source, error), "checkpoint.init_from (--from): {} is no file; name a checkpoint",
                 source);
  QN_CHECK(access(source.c_str(), R_OK) == 0, "checkpoint.init_from (--from): no permission to read {}", source);
  const FileKind kind = kind_of_file(source);
  QN_CHECK_USAGE(kind == FileKind::checkpoint, "checkpoint.init_from (--from): {} is no checkpoint: it is {}{}", source,
                 description(kind), kind == FileKind::safetensors ? "; a packed model cannot be trained on" : "");
}

void check_files(ProblemList& problems, const TrainerConfig& config, bool quantize, bool resume,
                 const fs::path& packed) {
  problems.collect([&] { check_folder(config.checkpoint.dir, "checkpoint.dir"); });
  problems.collect([&] { check_init_from(config.checkpoint, quantize, resume); });
  if (packed.empty()) return;
  problems.collect([&] {
    check_output_file(packed, "--out", FileKind::safetensors, {config.checkpoint.init_from}, config.checkpoint.dir);
  });
}

}  // namespace qn
