#include "core/folder_lock.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/machine.h"

namespace qn {
namespace {

constexpr auto kGrace = std::chrono::seconds(2);
constexpr auto kPause = std::chrono::milliseconds(100);

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Field 22 of /proc/PID/stat, ticks since the boot; empty when there is no such process. The name before it is in
/// parentheses and may hold anything.
std::string start_of(const std::string& pid) {
  const std::string stat = slurp("/proc/" + pid + "/stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  return field;
}

std::string process_of(const std::string& pid) { return machine_id() + ' ' + pid + ' ' + start_of(pid); }

std::string command_line() {
  constexpr size_t kLongest = 300;
  std::string command = slurp("/proc/self/cmdline");
  for (char& c : command)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  if (command.size() > kLongest) command = command.substr(0, kLongest) + "...";
  return command.substr(0, command.find_last_not_of(' ') + 1);
}

/// The lock is the open file's (not the process's): it does not go away when something else reads and closes the file,
/// and it keeps two runs of one process apart.
bool lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

[[noreturn]] void refuse(const std::filesystem::path& folder, const std::string& role, const std::string& owner) {
  fail(
      "{} {} is in use by {}. Wait until it ends, stop it (a run that gets SIGTERM saves first), or use another folder",
      role, folder.string(), owner);
}

/// The file is written to: a link would let something else be overwritten, a pipe would make readers wait for ever.
void check_lock_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::symlink_status(path, error);
  QN_CHECK(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status),
           "cannot use the lock file {}: it is {}; remove it", path.string(),
           std::filesystem::is_symlink(status) ? "a symbolic link" : "no regular file");
}

/// The path still leads to this file: its last owner may have removed it meanwhile.
bool is_at(int fd, const std::filesystem::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

LockOwner LockOwner::of_this_process() {
  const std::string pid = std::to_string(::getpid());
  const std::time_t now = std::time(nullptr);
  return {host_name(), process_of(pid), pid, fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(now)), command_line()};
}

LockOwner LockOwner::parse(const std::string& text) {
  LockOwner owner;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t gap = line.find(' ');
    if (gap == std::string::npos) continue;
    const std::string key = line.substr(0, gap), value = line.substr(gap + 1);
    for (const auto& [name, member] : {std::pair{"host", &LockOwner::host},
                                       {"process", &LockOwner::process},
                                       {"pid", &LockOwner::pid},
                                       {"started", &LockOwner::started},
                                       {"command", &LockOwner::command}})
      if (key == name) owner.*member = value;
  }
  return owner;
}

std::string LockOwner::to_text() const {
  return fmt::format("host {}\npid {}\nstarted {}\ncommand {}\nprocess {}\n", host, pid, started, command, process);
}

std::string LockOwner::describe() const {
  if (pid.empty()) return "another process";
  return fmt::format("process {} on {}, started {}: {}", pid, host, started, command);
}

FolderLock::FolderLock(std::filesystem::path folder, std::string role, Method method)
    : folder_(std::move(folder)),
      path_(folder_ / kFileName),
      role_(std::move(role)),
      own_(LockOwner::of_this_process().to_text()) {
  const auto deadline = std::chrono::steady_clock::now() + kGrace;
  while (!try_acquire(method)) {
    if (std::chrono::steady_clock::now() >= deadline) refuse(LockOwner::parse(content()).describe());
    std::this_thread::sleep_for(kPause);
  }
}

FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  if (!recorded_ || content() == own_) ::unlink(path_.c_str());  // while the lock is held: others see it go, or wait
  ::close(fd_);
}

std::string FolderLock::content() const { return slurp(path_.string()); }

void FolderLock::refuse(const std::string& owner) const { qn::refuse(folder_, role_, owner); }

/// False when it should be tried again.
bool FolderLock::try_acquire(Method method) {
  check_lock_file(path_);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  QN_CHECK(fd_ >= 0, "cannot lock {} {} by its file {}: {}", role_, folder_.string(), FolderLock::kFileName,
           std::generic_category().message(errno));
  const bool locked = method == Method::automatic && lock(fd_);
  const bool taken = method == Method::automatic && !locked && (errno == EAGAIN || errno == EACCES);
  if (taken || !is_at(fd_, path_)) {
    ::close(std::exchange(fd_, -1));
    return false;
  }
  const std::string before = content();
  const LockOwner owner = LockOwner::parse(before);
  if (!locked) {
    spdlog::warn("the file system of {} {} has no locks: see to it yourself that no other machine uses the folder",
                 role_, folder_.string());
    const bool here = owner.process.starts_with(machine_id() + ' ');
    if (!before.empty() && (!here || process_of(owner.pid) == owner.process)) {
      ::close(std::exchange(fd_, -1));
      refuse(owner.describe() + (here ? "" : fmt::format(" (if that process has ended, remove {})", path_.string())));
    }
  }
  if (!before.empty())
    spdlog::info("{} {} was held by {}; it ended without giving it back", role_, folder_.string(), owner.describe());
  take_over();
  return true;
}

/// A disk too full for the file costs nothing but the message that others get: the lock holds without it.
void FolderLock::take_over() {
  recorded_ =
      ::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, own_.data(), own_.size(), 0) == static_cast<ssize_t>(own_.size());
}

void FolderLock::check_held() const {
  const std::string now = content();
  QN_CHECK(!recorded_ || now.empty() || now == own_,
           "{} {} has been taken over by {}: this run ends without writing to it any more", role_, folder_.string(),
           LockOwner::parse(now).describe());
}

std::optional<FolderHolder> folder_holder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / FolderLock::kFileName;
  check_lock_file(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return std::nullopt;
  struct flock whole {};
  whole.l_type = F_RDLCK;  // in the way of a writer's lock, and allowed for a file that is open to be read
  whole.l_whence = SEEK_SET;
  const bool known = ::fcntl(fd, F_OFD_GETLK, &whole) == 0;
  ::close(fd);
  const LockOwner owner = LockOwner::parse(slurp(path.string()));
  const bool lives = !owner.process.empty() && process_of(owner.pid) == owner.process;
  return FolderHolder{owner, known ? whole.l_type != F_UNLCK : lives};
}

void check_unlocked(const std::filesystem::path& folder, const std::string& role) {
  if (const auto holder = folder_holder(folder); holder && holder->held) refuse(folder, role, holder->owner.describe());
}

}  // namespace qn
