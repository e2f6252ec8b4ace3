// How a run stands, seen from outside: from its folder alone, on any machine that sees it.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "core/folder_lock.h"
#include "train/run_status.h"

namespace qn {

enum class HealthState {
  running,   ///< a process has the folder and makes progress
  finished,  ///< all is done
  stopped,   ///< by a signal, with everything saved
  silent,    ///< a process has the folder, but it has not written for too long: stopped, stuck, or its machine is gone
  stuck,     ///< the process lives, but what it computes makes no progress
  failed,    ///< it ended with an error
  killed,    ///< its process is gone without having said how it ended
  unknown,   ///< nothing runs, and nothing tells how it ended: older programs
};
template <>
struct EnumNames<HealthState> {
  static constexpr EnumName<HealthState> kAll[] = {
      {HealthState::running, "running"}, {HealthState::finished, "finished"}, {HealthState::stopped, "stopped"},
      {HealthState::silent, "silent"},   {HealthState::stuck, "stuck"},       {HealthState::failed, "failed"},
      {HealthState::killed, "killed"},   {HealthState::unknown, "unknown"}};
};

struct RunHealth {
  HealthState state = HealthState::unknown;
  std::string text;                    ///< one sentence for people
  std::optional<StatusRecord> record;  ///< what the run said last; older programs say nothing
  std::optional<FolderHolder> holder;  ///< who has or had the folder
};

/// What there is to go by.
struct HealthSigns {
  std::optional<StatusRecord> record;
  std::optional<FolderHolder> holder;
  bool damaged = false;      ///< status.json is there, and nothing that this program reads
  bool same_machine = true;  ///< the holder's and this one: then the lock is to be trusted
  bool beats = false;        ///< the file has changed while it was watched
  bool watched = false;
  double now = 0.0;
};
/// The judgement, from nothing else. When it depends on whether the file changes, and nobody has watched it yet,
/// nothing is returned.
std::optional<RunHealth> judge(const HealthSigns& signs);

/// Looks at `folder`; if need be it watches the status file for `patience`, because clocks of machines may differ.
RunHealth look_at_run(const std::filesystem::path& folder,
                      std::chrono::milliseconds patience = 3 * RunStatus::kInterval);

/// Status of `quantnoise status`: 0 running or finished, 3 stopped, 4 silent or stuck, 5 failed, killed or unknown.
int exit_code_of(HealthState state);

}  // namespace qn
