#include "core/file_descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/fault_point.h"

namespace qn {
namespace {

/// What drills set while other threads write: the file of the run's status, for one.
class Drill {
 public:
  void set(FileFault fault) {
    auto next = std::make_shared<const FileFault>(std::move(fault));
    const std::lock_guard lock(mutex_);
    fault_ = std::move(next);
  }
  int error_of(FileStep step, const std::filesystem::path& path) const {
    std::shared_ptr<const FileFault> fault;
    {
      const std::lock_guard lock(mutex_);
      fault = fault_;
    }
    return fault != nullptr && *fault ? (*fault)(step, path) : 0;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const FileFault> fault_;
};

Drill& drill() {
  static auto* const only = new Drill;  // outlives threads that still write at the end
  return *only;
}

const char* name_of(FileStep step) {
  switch (step) {
    case FileStep::open_to_write:
      return "file.create";
    case FileStep::write:
      return "file.write";
    case FileStep::sync:
      return "file.sync";
    case FileStep::rename:
      return "file.rename";
    case FileStep::remove:
      return "file.remove";
  }
  return "file";
}

/// What drills make of this step; where it fails, errno is set.
FaultedStep faulted(FileStep step, const std::filesystem::path& path) {
  FaultedStep faulted = faulted_step(name_of(step), path);
  if (faulted.error == 0) faulted.error = drill().error_of(step, path);
  if (faulted.error != 0) errno = faulted.error;
  return faulted;
}

bool fails_on_purpose(FileStep step, const std::filesystem::path& path) { return faulted(step, path).error != 0; }

int open_file(const std::filesystem::path& path, int flags) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (writes && fails_on_purpose(FileStep::open_to_write, path)) return -1;
  if (const int error = writes ? 0 : faulted_step("file.open", path).error; error != 0) {
    errno = error;
    return -1;
  }
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever; regular files do not care.
  return ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666);
}

const char* advice(int error, bool creates) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "; free some space or choose another folder";
    case EACCES:
    case EPERM:
    case EROFS:
      return "; check the permissions of the file and its folder";
    case ENOENT:
      return creates ? "; check the path, folders are not created" : "; check the path";
    default:
      return "";
  }
}

[[noreturn]] void fail_to(const char* action, const std::filesystem::path& path, int error, bool creates) {
  fail("cannot {} {}: {}{}", action, path.string(), std::generic_category().message(error), advice(error, creates));
}

}  // namespace

void inject_file_faults(FileFault fault) { drill().set(std::move(fault)); }

FileDescriptor::FileDescriptor(const std::filesystem::path& path, int flags, const char* action)
    : path_(path), creates_((flags & O_CREAT) != 0), fd_(open_file(path, flags)) {
  check(fd_ >= 0, action);
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void FileDescriptor::check(bool success, const char* action) const {
  if (!success) fail_to(action, path_, errno, creates_);
}

size_t FileDescriptor::size() const {
  struct stat status {};
  check(::fstat(fd_, &status) == 0, "read");
  QN_CHECK(S_ISREG(status.st_mode), "cannot read {}: it is not a regular file but {}", path_.string(),
           S_ISDIR(status.st_mode)    ? "a folder"
           : S_ISFIFO(status.st_mode) ? "a pipe, of which there is only one copy; write it to a file first"
                                      : "a device or socket");
  return static_cast<size_t>(status.st_size);
}

size_t FileDescriptor::read(size_t offset, std::span<std::byte> bytes) const {
  const FaultedStep faulted = faulted_step("file.read", path_);
  errno = faulted.error;
  check(faulted.error == 0, "read");
  const size_t half = bytes.size() / 2;
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t want = faulted.half && done == 0 && half > 0 ? half : bytes.size() - done;
    const ssize_t got = ::pread(fd_, bytes.data() + done, want, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return faulted.ends ? std::min(done, half) : done;
}

void FileDescriptor::write(size_t offset, std::span<const std::byte> bytes) const {
  const FaultedStep step = faulted(FileStep::write, path_);
  check(step.error == 0, "write");
  const size_t half = bytes.size() / 2;
  for (size_t done = 0; done < bytes.size();) {
    const size_t want = step.half && done == 0 && half > 0 ? half : bytes.size() - done;
    const ssize_t put = ::pwrite(fd_, bytes.data() + done, want, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    check(put >= 0, "write");
    done += static_cast<size_t>(put);
  }
}

bool FileDescriptor::try_truncate(size_t bytes) const { return ::ftruncate(fd_, static_cast<off_t>(bytes)) == 0; }

void FileDescriptor::sync() const {
  check(!fails_on_purpose(FileStep::sync, path_), "sync");
  // Some network and container file systems cannot sync folders and say so with EINVAL.
  check(::fsync(fd_) == 0 || errno == EINVAL, "sync");
}

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to, const char* action) {
  if (fails_on_purpose(FileStep::rename, to) || std::rename(from.c_str(), to.c_str()) != 0)
    fail_to(action, to, errno, true);
}

std::error_code remove_file(const std::filesystem::path& path) {
  if (fails_on_purpose(FileStep::remove, path)) return {errno, std::generic_category()};
  std::error_code error;
  std::filesystem::remove(path, error);
  return error;
}

}  // namespace qn
