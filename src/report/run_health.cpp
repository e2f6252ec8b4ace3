#include "report/run_health.h"

#include <fmt/format.h>

#include <thread>

#include "core/error.h"
#include "core/file_io.h"
#include "core/machine.h"
#include "train/progress.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// A file that is older than this may be that of a process that is gone.
constexpr double kFresh = 6.0 * std::chrono::duration<double>(RunStatus::kInterval).count();
/// Work without a sign for so long is stuck where comm.watchdog_seconds says nothing.
constexpr double kUsualPatience = 600.0;

std::string where(const StatusRecord& r) { return r.phase.empty() ? "" : fmt::format(" while {}", r.phase); }

std::optional<StatusRecord> read_record(const fs::path& folder) {
  constexpr size_t kMost = 1 << 20;
  const fs::path path = folder / RunStatus::kFileName;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  try {
    const std::vector<std::byte> bytes = read_file_head(path, kMost);
    return parse_status({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  } catch (const Error&) {
    return std::nullopt;
  }
}

RunHealth alive(const HealthSigns& s) {
  const StatusRecord& r = *s.record;
  const double patience = r.patience > 0.0 ? r.patience : kUsualPatience;
  const double quiet = r.written - r.progressed;  // both by the clock of the machine that writes
  if (quiet > patience)
    return {HealthState::stuck,
            fmt::format("not responding: no progress{} since {} ({} ago); its process lives", where(r),
                        format_clock(r.progressed), format_duration(quiet)),
            r, s.holder};
  return {HealthState::running, "running", r, s.holder};
}

RunHealth silent(const HealthSigns& s) {
  const StatusRecord& r = *s.record;
  return {HealthState::silent,
          fmt::format("not responding since {} ({} ago){}: the process is stopped, its machine is gone, or it cannot "
                      "write to this folder (full disk, lost server)",
                      format_clock(r.written), format_duration(s.now - r.written), where(r)),
          r, s.holder};
}

RunHealth ended(const HealthSigns& s) {
  const StatusRecord& r = *s.record;
  const std::string because = r.message.empty() ? "" : ": " + r.message;
  switch (r.condition) {
    case RunCondition::finished:
      return {HealthState::finished, "finished", r, s.holder};
    case RunCondition::stopped:
      return {HealthState::stopped, fmt::format("stopped{}; all is saved, the same command goes on", because), r,
              s.holder};
    case RunCondition::failed:
      return {HealthState::failed, "ended with an error" + because, r, s.holder};
    case RunCondition::running:
      break;
  }
  return {HealthState::killed,
          fmt::format("ended without a word{} after {}: killed, or its machine went down; the same command goes on "
                      "from the newest checkpoint",
                      where(r), format_clock(r.written)),
          r, s.holder};
}

}  // namespace

std::optional<RunHealth> judge(const HealthSigns& s) {
  const bool held = s.holder && s.holder->held;
  if (!s.record) {
    if (held) return RunHealth{HealthState::running, "running; it has not said yet what it does", {}, s.holder};
    const std::string why = s.damaged ? "status.json, which tells how it ended, is damaged or of a newer program"
                                      : "how it ended is not recorded";
    if (s.holder) return RunHealth{HealthState::killed, "its process is gone; " + why, {}, s.holder};
    return RunHealth{HealthState::unknown, "nothing runs here; " + why, {}, {}};
  }
  const StatusRecord& r = *s.record;
  if (r.condition != RunCondition::running) {
    const bool another = held && s.holder->owner.pid != std::to_string(r.pid);
    if (another) return RunHealth{HealthState::running, "starting", r, s.holder};
    return ended(s);
  }
  const bool fresh = s.now - r.written < kFresh && r.written < s.now + kFresh;
  // Locks of a network file system may be known to one machine only; a file that changes is known to all.
  if (!held && s.holder && s.same_machine) return ended(s);
  if (fresh && held) return alive(s);
  if (!s.watched) return std::nullopt;
  if (s.beats) return alive(s);
  return held ? silent(s) : ended(s);
}

RunHealth look_at_run(const fs::path& folder, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kPause{250};
  HealthSigns signs;
  const auto look = [&] {
    signs.record = read_record(folder);
    std::error_code error;
    signs.damaged = !signs.record && fs::exists(folder / RunStatus::kFileName, error);
    signs.holder = folder_holder(folder);
    signs.same_machine = !signs.holder || signs.holder->owner.host == host_name();
    signs.now = unix_time();
  };
  look();
  if (const auto health = judge(signs)) return *health;
  const int64_t beat = signs.record->beat;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!signs.beats && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPause);
    look();
    signs.beats = signs.record && signs.record->beat != beat;
  }
  signs.watched = true;
  return judge(signs).value();
}

int exit_code_of(HealthState state) {
  switch (state) {
    case HealthState::running:
    case HealthState::finished:
      return 0;
    case HealthState::stopped:
      return 3;
    case HealthState::silent:
    case HealthState::stuck:
      return 4;
    default:
      return 5;
  }
}

}  // namespace qn
