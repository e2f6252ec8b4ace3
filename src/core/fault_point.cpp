#include "core/fault_point.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/log.h"

namespace qn {

#ifdef QN_FAULT_POINTS

namespace {

constexpr std::pair<std::string_view, int> kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
                                                        {"EACCES", EACCES}, {"EROFS", EROFS},   {"EMFILE", EMFILE}};

struct Fault {
  std::string point;
  int64_t rank = -1;  // -1: every one
  int64_t first = 1, last = 1, visits = 0;
  int signal = 0;
  int64_t milliseconds = 0;
  FaultedStep step;
};

struct Faults {
  std::mutex mutex;
  std::vector<Fault> all;
  std::string trace;
};

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Of this process, as the launchers say it: nothing here knows MPI.
int64_t own_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const std::string value = variable(name); !value.empty()) return std::atoll(value.c_str());
  return 0;
}

std::optional<int64_t> number_in(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

/// Cuts what follows the last `mark` off `text` and returns it.
std::optional<std::string_view> cut(std::string_view& text, char mark) {
  const size_t at = text.rfind(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view tail = text.substr(at + 1);
  text = text.substr(0, at);
  return tail;
}

bool set_action(Fault& fault, std::string_view action) {
  if (action == "kill" || action == "stop") {
    fault.signal = action == "kill" ? SIGKILL : SIGSTOP;
    return true;
  }
  if (action == "short" || action == "end") {
    (action == "short" ? fault.step.half : fault.step.ends) = true;
    return true;
  }
  if (action.starts_with("wait")) {
    const auto milliseconds = number_in(action.substr(4));
    fault.milliseconds = milliseconds.value_or(0);
    return milliseconds.has_value();
  }
  for (const auto& [name, error] : kErrors)
    if (action == name) fault.step.error = error;
  return fault.step.error != 0;
}

Fault parse_fault(std::string_view text) {
  Fault fault;
  std::string_view rest = text;
  const auto action = cut(rest, '='), visit = cut(rest, ':'), rank = cut(rest, '@');
  bool good = action && set_action(fault, *action) && !rest.empty();
  if (visit) {
    const bool later = visit->ends_with('+');
    const auto number = number_in(visit->substr(0, visit->size() - (later ? 1 : 0)));
    good = good && number && *number > 0;
    fault.first = number.value_or(1);
    fault.last = later ? std::numeric_limits<int64_t>::max() : fault.first;
  }
  if (rank) {
    good = good && number_in(*rank);
    fault.rank = number_in(*rank).value_or(-1);
  }
  QN_CHECK_USAGE(good,
                 "QN_FAULTS: '{}' is no fault. One is POINT[@RANK][:VISIT]=ACTION, for example "
                 "file.rename/checkpoint_last.h5:2=kill; src/core/fault_point.h lists the actions",
                 text);
  fault.point = rest;
  return fault;
}

/// Only those of this rank.
std::vector<Fault> parse_faults(std::string_view text) {
  std::vector<Fault> all;
  const int64_t rank = own_rank();
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    Fault fault = parse_fault(text.substr(0, end));
    if (fault.rank < 0 || fault.rank == rank) all.push_back(std::move(fault));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return all;
}

Faults& faults() {
  static auto* const known = [] {  // never destroyed: threads may still write when the process ends
    auto* made = new Faults;
    made->all = parse_faults(variable("QN_FAULTS"));
    if (const std::string trace = variable("QN_FAULT_TRACE"); !trace.empty())
      made->trace = trace + '.' + std::to_string(own_rank());
    return made;
  }();
  return *known;
}

/// Past all buffers, and in one piece.
void say(const std::string& line) { static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size())); }

void note(const std::string& trace, const std::string& line) {
  const int fd = ::open(trace.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return;
  static_cast<void>(!::write(fd, line.data(), line.size()));
  ::close(fd);
}

void disturb(const Fault& fault) {
  say(fmt::format("QN_FAULTS: {} in process {}: {}\n", fault.point, ::getpid(),
                  fault.signal == SIGKILL   ? "killed"
                  : fault.signal == SIGSTOP ? "stopped"
                                            : "disturbed"));
  if (fault.signal != 0) ::kill(::getpid(), fault.signal);
  std::this_thread::sleep_for(std::chrono::milliseconds(fault.milliseconds));
}

/// A visit of `name`, which is of the kind `general` if it has one.
FaultedStep visit(const std::string& name, const std::string& general) {
  Faults& known = faults();
  if (known.all.empty() && known.trace.empty()) return {};
  FaultedStep step;
  std::vector<Fault> due;
  {
    const std::lock_guard lock(known.mutex);
    if (!known.trace.empty()) note(known.trace, name + "\n");
    for (Fault& fault : known.all) {
      if (fault.point != name && fault.point != general) continue;
      ++fault.visits;
      if (fault.visits >= fault.first && fault.visits <= fault.last) due.push_back(fault);
    }
  }
  for (const Fault& fault : due) {
    disturb(fault);
    step = fault.step;
  }
  return step;
}

/// Temporary files count as what they will be.
std::string file_name(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.substr(0, name.find(".tmp-"));
}

}  // namespace

void fault_point(const char* name) { visit(name, name); }

FaultedStep faulted_step(const char* step, const std::filesystem::path& path) {
  const Faults& known = faults();
  if (known.all.empty() && known.trace.empty()) return {};
  return visit(std::string(step) + '/' + file_name(path), step);
}

void set_faults(const std::string& text) { faults().all = parse_faults(text); }

void announce_faults() {
  if (faults().all.empty()) return;
  warn_of_this_rank(fmt::format("QN_FAULTS is set: this process fails on purpose ({})", variable("QN_FAULTS")));
  // Names of points are no fixed list, because those of files contain their names.
  std::atexit([] {
    const std::lock_guard lock(faults().mutex);
    for (const Fault& fault : faults().all)
      if (fault.visits < fault.first)
        say(fmt::format("QN_FAULTS: {} did not happen in process {}: it was reached {} times\n", fault.point,
                        ::getpid(), fault.visits));
  });
}

#else

void fault_point(const char*) {}

FaultedStep faulted_step(const char*, const std::filesystem::path&) { return {}; }

void set_faults(const std::string& text) {
  QN_CHECK_USAGE(text.empty(), "QN_FAULTS: this program was built without fault points (-DQN_FAULT_POINTS=ON)");
}

void announce_faults() {
  const char* faults = std::getenv("QN_FAULTS");
  set_faults(faults == nullptr ? "" : faults);
}

#endif

}  // namespace qn
