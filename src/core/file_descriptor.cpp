#include "core/file_descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace qn {
namespace {

FileFault& file_fault() {
  static FileFault fault;
  return fault;
}

/// True, with errno set, when a drill makes this step fail.
bool fails_on_purpose(FileStep step, const std::filesystem::path& path) {
  const FileFault& fault = file_fault();
  const int error = fault ? fault(step, path) : 0;
  if (error != 0) errno = error;
  return error != 0;
}

int open_file(const std::filesystem::path& path, int flags) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (writes && fails_on_purpose(FileStep::open_to_write, path)) return -1;
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

void inject_file_faults(FileFault fault) { file_fault() = std::move(fault); }

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
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void FileDescriptor::write(size_t offset, std::span<const std::byte> bytes) const {
  check(!fails_on_purpose(FileStep::write, path_), "write");
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
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

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (fails_on_purpose(FileStep::rename, to) || std::rename(from.c_str(), to.c_str()) != 0)
    fail_to("replace", to, errno, true);
}

}  // namespace qn
