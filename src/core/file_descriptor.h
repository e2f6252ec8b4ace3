// The system's files: every call that can fail becomes a qn::Error, and drills can make each of them fail, here or from
// outside (core/fault_point.h). What the program keeps goes through here: checkpoints, packed files, prepared data,
// records of runs.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <system_error>

namespace qn {

/// What drills can make fail: `fault` is asked before every such step, from any thread, and an errno other than 0 is
/// the step's result. An empty function ends the drill. Steps under way may still ask the one before.
enum class FileStep { open_to_write, write, sync, rename, remove };
using FileFault = std::function<int(FileStep step, const std::filesystem::path& path)>;
void inject_file_faults(FileFault fault);

/// An open file that closes itself. Throws qn::Error with the path, the system's reason and what to do about it.
class FileDescriptor {
 public:
  /// `flags` are those of open(2), `action` is for the message: "cannot open ...".
  FileDescriptor(const std::filesystem::path& path, int flags, const char* action);
  ~FileDescriptor();
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }
  /// Throws for the current errno unless `success`.
  void check(bool success, const char* action) const;
  /// Of a regular file; throws for others.
  size_t size() const;
  /// Returns how many bytes there were.
  size_t read(size_t offset, std::span<std::byte> bytes) const;
  void write(size_t offset, std::span<const std::byte> bytes) const;
  void truncate(size_t bytes) const { check(try_truncate(bytes), "set the size of"); }
  bool try_truncate(size_t bytes) const;
  /// To disk.
  void sync() const;

 private:
  std::filesystem::path path_;
  bool creates_;
  int fd_;
};

/// Atomic; throws as above, "cannot ACTION TO: ...".
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to, const char* action = "replace");

/// An error where the file is still there.
std::error_code remove_file(const std::filesystem::path& path);

}  // namespace qn
