// One process at a time in a folder: a lock of the file system, and a file that says whose it is.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace qn {

/// Who holds or held a folder, as the lock file has it: one "key value" per line.
struct LockOwner {
  std::string host, process;  ///< process: boot of the machine, id and start: no other process has the same
  std::string pid, started, command;

  static LockOwner of_this_process();
  static LockOwner parse(const std::string& text);
  std::string to_text() const;
  /// "process 1234 on node7, started 2026-11-27 19:01:04: quantnoise train -c a.yaml"
  std::string describe() const;
};

/// Holds a folder from construction to destruction. What counts is a lock of the file system on the file
/// `quantnoise.lock`, which ends with the process, however that ends, and is not handed to child processes; it works
/// across machines where the file system's locks do (NFS: unless mounted with nolock). Where there are no locks, the
/// content of the file is all there is to go by: that is a warning, an owner on this machine is looked for, and one on
/// another machine has to be vouched for by a person. The file is removed at the end.
class FolderLock {
 public:
  static constexpr const char* kFileName = "quantnoise.lock";
  enum class Method { automatic, file_only };  ///< file_only: as where the file system has no locks

  /// Throws qn::Error naming the owner when another process holds `folder`, which must exist; waits two seconds first,
  /// because a killed process takes a moment to vanish. `role` is how messages call the folder: "checkpoint.dir".
  FolderLock(std::filesystem::path folder, std::string role, Method method = Method::automatic);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  /// Throws qn::Error when another process has the folder by now: somebody removed the lock file, or the file system
  /// lent it twice.
  void check_held() const;

 private:
  bool try_acquire(Method method);
  void take_over();
  [[noreturn]] void refuse(const std::string& owner) const;
  std::string content() const;

  std::filesystem::path folder_, path_;
  std::string role_, own_;
  int fd_ = -1;
  bool recorded_ = false;  // the file says that it is ours
};

/// Who has or had a folder.
struct FolderHolder {
  LockOwner owner;
  bool held = false;  ///< by a lock of the file system or, where there are no locks, by a process of this machine
};
/// Nothing where the folder has no lock file: then nobody has it. Takes and changes nothing. Throws qn::Error where the
/// lock file is none.
std::optional<FolderHolder> folder_holder(const std::filesystem::path& folder);

/// Throws qn::Error naming the owner when another process holds `folder` by a lock of the file system; takes and
/// changes nothing. A folder that does not exist is free.
void check_unlocked(const std::filesystem::path& folder, const std::string& role);

}  // namespace qn
