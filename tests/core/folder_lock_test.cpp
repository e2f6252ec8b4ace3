#include "core/folder_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "core/file_io.h"
#include "support/capture.h"
#include "support/temp_dir.h"

namespace qn {
namespace {

using test::error_of;
using testing::HasSubstr;

class FolderLockTest : public testing::Test {
 protected:
  std::string lock_text() const {
    std::stringstream text;
    text << std::ifstream(file_).rdbuf();
    return text.str();
  }

  /// A process that holds the folder until it is killed.
  pid_t holder(FolderLock::Method method) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      const FolderLock lock(dir_.path(), "checkpoint.dir", method);
      if (write(ready[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]), close(ready[1]);
    return child;
  }
  static void kill_and_wait(pid_t child) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }

  test::TempDir dir_;
  std::filesystem::path file_ = dir_ / FolderLock::kFileName;
};

TEST_F(FolderLockTest, SecondIsRefusedByTheOwnersName) {
  {
    const FolderLock lock(dir_.path(), "checkpoint.dir");
    const std::string error = error_of([&] { FolderLock(dir_.path(), "checkpoint.dir"); });
    const LockOwner self = LockOwner::of_this_process();
    EXPECT_THAT(error, HasSubstr("checkpoint.dir " + dir_.path().string() + " is in use by process " + self.pid));
    EXPECT_THAT(error, HasSubstr(" on " + self.host + ", started "));
    EXPECT_THAT(error, HasSubstr("folder_lock_test"));
    EXPECT_NO_THROW(lock.check_held());
  }
  EXPECT_FALSE(std::filesystem::exists(file_));
  EXPECT_NO_THROW(FolderLock(dir_.path(), "checkpoint.dir"));
}

TEST_F(FolderLockTest, LinksAreNotFollowed) {
  const std::filesystem::path precious = dir_ / "precious";
  atomic_write_text(precious, "content");
  std::filesystem::create_symlink(precious, file_);
  for (const auto method : {FolderLock::Method::automatic, FolderLock::Method::file_only})
    EXPECT_THAT(error_of([&] { FolderLock(dir_.path(), "checkpoint.dir", method); }),
                HasSubstr(file_.string() + ": it is a symbolic link; remove it"));
  EXPECT_THAT(error_of([&] { check_unlocked(dir_.path(), "checkpoint.dir"); }), HasSubstr("a symbolic link"));
  EXPECT_EQ(std::filesystem::file_size(precious), 7U);
  std::filesystem::remove(file_);
  ASSERT_EQ(mkfifo(file_.c_str(), 0666), 0);
  EXPECT_THAT(error_of([&] { FolderLock(dir_.path(), "checkpoint.dir"); }), HasSubstr("it is no regular file"));
}

TEST_F(FolderLockTest, KilledOwnersLeaveNoLock) {
  for (const auto method : {FolderLock::Method::automatic, FolderLock::Method::file_only}) {
    const pid_t child = holder(method);
    EXPECT_THAT(error_of([&] { FolderLock(dir_.path(), "checkpoint.dir", method); }),
                HasSubstr(fmt::format("process {} on ", child)));
    kill_and_wait(child);
    const test::LogCapture log;
    const FolderLock lock(dir_.path(), "checkpoint.dir", method);
    EXPECT_THAT(log.text(), HasSubstr(fmt::format("was held by process {}", child)));
    EXPECT_THAT(lock_text(), HasSubstr(fmt::format("pid {}\n", getpid())));
  }
}

TEST_F(FolderLockTest, ChildrenOfTheOwnerDoNotHoldIt) {
  pid_t child = 0;
  {
    const FolderLock lock(dir_.path(), "checkpoint.dir");
    child = fork();
    if (child == 0) {
      execlp("sleep", "sleep", "60", nullptr);
      _exit(1);
    }
  }
  EXPECT_NO_THROW(FolderLock(dir_.path(), "checkpoint.dir"));
  kill_and_wait(child);
}

TEST_F(FolderLockTest, WithoutLocksAnotherMachineNeedsAPersonsWord) {
  LockOwner other = LockOwner::of_this_process();
  other.host = "elsewhere";
  other.process = "elsewhere 0123 " + other.pid + " 1";
  atomic_write_text(file_, other.to_text());
  const test::LogCapture log;
  const std::string error = error_of([&] { FolderLock(dir_.path(), "checkpoint.dir", FolderLock::Method::file_only); });
  EXPECT_THAT(error, HasSubstr("on elsewhere, started"));
  EXPECT_THAT(error, HasSubstr("remove " + file_.string()));
  EXPECT_THAT(log.text(), HasSubstr("has no locks"));
  EXPECT_EQ(lock_text(), other.to_text());
  // With locks, its lock has gone with it.
  EXPECT_NO_THROW(FolderLock(dir_.path(), "checkpoint.dir"));
}

TEST_F(FolderLockTest, NoticesThatSomebodyElseHasIt) {
  const FolderLock first(dir_.path(), "checkpoint.dir");
  std::filesystem::remove(file_);
  const pid_t child = holder(FolderLock::Method::automatic);
  EXPECT_THAT(error_of([&] { first.check_held(); }), HasSubstr(fmt::format("taken over by process {}", child)));
  kill_and_wait(child);
}

}  // namespace
}  // namespace qn
