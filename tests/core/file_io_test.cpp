#include "core/file_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "core/error.h"
#include "support/temp_dir.h"

namespace qn {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

class FileIo : public testing::Test {
 protected:
  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "file.txt";
};

TEST_F(FileIo, WritesAndReplaces) {
  for (const std::string& content :
       {std::string("first"), std::string("a\0b", 3), std::string(), std::string(3000000, 'x')}) {
    atomic_write_text(path_, content);
    EXPECT_EQ(text_of(read_file_bytes(path_)), content);
    EXPECT_EQ(text_of(MappedFile(path_).bytes()), content);
  }
  EXPECT_EQ(files_in(folder_.path()), 1u);
}

TEST_F(FileIo, OldContentStaysVisibleUntilTheEnd) {
  atomic_write_text(path_, "old");
  atomic_write(path_, [&](const std::filesystem::path& temporary) {
    EXPECT_EQ(temporary.parent_path(), path_.parent_path()) << "a rename works within one file system only";
    std::ofstream(temporary) << "new";
    EXPECT_EQ(text_of(read_file_bytes(path_)), "old");
  });
  EXPECT_EQ(text_of(read_file_bytes(path_)), "new");
}

TEST_F(FileIo, FailingWriterLeavesNothingBehind) {
  atomic_write_text(path_, "old");
  EXPECT_THROW(atomic_write(path_,
                            [](const std::filesystem::path& temporary) {
                              std::ofstream(temporary) << "half of the ne";
                              fail("writer failed");
                            }),
               Error);
  EXPECT_EQ(text_of(read_file_bytes(path_)), "old");
  EXPECT_EQ(files_in(folder_.path()), 1u);
}

TEST_F(FileIo, RespectsTheUmask) {
  const mode_t previous = ::umask(027);
  atomic_write_text(path_, "x");
  ::umask(previous);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST_F(FileIo, ErrorsNameThePathAndTheReason) {
  EXPECT_THAT([&] { atomic_write_text(folder_ / "none/a.txt", "x"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("none/a.txt"), HasSubstr("No such file or directory"))));
  EXPECT_THAT([&] { read_file_bytes(path_); },
              ThrowsMessage<Error>(AllOf(HasSubstr("file.txt"), HasSubstr("No such file"))));
  EXPECT_THAT([&] { MappedFile{path_}; },
              ThrowsMessage<Error>(AllOf(HasSubstr("file.txt"), HasSubstr("No such file"))));
  EXPECT_THAT([&] { read_file_bytes(path_); }, ThrowsMessage<Error>(testing::Not(HasSubstr("folders"))));
  EXPECT_THAT([&] { read_file_bytes(folder_.path()); },
              ThrowsMessage<Error>(HasSubstr("not a regular file but a folder")));
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0666), 0);  // opening it must not wait for a writer
  EXPECT_THAT([&] { read_file_bytes(folder_ / "pipe"); }, ThrowsMessage<Error>(HasSubstr("but a pipe")));
  EXPECT_THAT([&] { MappedFile{folder_ / "pipe"}; }, ThrowsMessage<Error>(HasSubstr("but a pipe")));
  EXPECT_THAT([&] { read_pipe(folder_ / "pipe"); }, ThrowsMessage<Error>(HasSubstr("a pipe that nobody writes to")));
  std::thread writer([&] { std::ofstream(folder_ / "pipe") << std::string(300'000, 'x'); });
  EXPECT_EQ(read_pipe(folder_ / "pipe").size(), 300'000U);
  writer.join();
  std::filesystem::remove(folder_ / "pipe");
  std::filesystem::create_directory(path_);
  EXPECT_THAT([&] { atomic_write_text(path_, "x"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("cannot write"), HasSubstr("a folder"))));
  EXPECT_EQ(files_in(folder_.path()), 1u);
}

TEST_F(FileIo, LinksStayAndTheirTargetsAreWritten) {
  namespace fs = std::filesystem;
  fs::create_directory(folder_ / "far");
  fs::create_symlink("far/target", folder_ / "middle");
  fs::create_symlink(folder_ / "middle", folder_ / "link");
  for (const char* content : {"made", "replaced"}) {  // dangling at first
    atomic_write_text(folder_ / "link", content);
    EXPECT_TRUE(fs::is_symlink(folder_ / "link") && fs::is_symlink(folder_ / "middle"));
    EXPECT_FALSE(fs::is_symlink(folder_ / "far/target"));
    EXPECT_EQ(text_of(read_file_bytes(folder_ / "far/target")), content);
  }
  EXPECT_EQ(files_in(folder_ / "far"), 1u);
  fs::create_symlink("circle", folder_ / "circle");
  EXPECT_THAT([&] { atomic_write_text(folder_ / "circle", "x"); },
              ThrowsMessage<Error>(HasSubstr("a circle of symbolic links")));
}

TEST_F(FileIo, WhatIsNoFileIsNotReplaced) {
  namespace fs = std::filesystem;
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0666), 0);
  fs::create_symlink("pipe", folder_ / "link");
  for (const char* name : {"pipe", "link"})
    EXPECT_THAT([&] { atomic_write_text(folder_ / name, "x"); },
                ThrowsMessage<Error>(HasSubstr(std::string(name) + ": this is a pipe; name a regular file")));
  EXPECT_TRUE(fs::is_fifo(folder_ / "pipe") && fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(files_in(folder_.path()), 2u);
  if (mknod((folder_ / "node").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0) GTEST_SKIP() << "no right to make devices";
  EXPECT_THAT([&] { atomic_write_text(folder_ / "node", "x"); }, ThrowsMessage<Error>(HasSubstr("a device or socket")));
  EXPECT_TRUE(fs::is_character_file(folder_ / "node"));
}

TEST_F(FileIo, FullDiskIsReported) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  EXPECT_THAT([] { overwrite_file_bytes("/dev/full", 0, std::vector<std::byte>(10)); },
              ThrowsMessage<Error>(AllOf(HasSubstr("No space left"), HasSubstr("free some space"))));
}

TEST_F(FileIo, MissingPermissionIsReported) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_THAT([&] { atomic_write_text(path_, "x"); }, ThrowsMessage<Error>(HasSubstr("check the permissions")));
  std::filesystem::permissions(folder_.path(), std::filesystem::perms::owner_all);
}

TEST_F(FileIo, PartsAreReadAndReplaced) {
  atomic_write_text(path_, "0123456789");
  EXPECT_EQ(text_of(read_file_bytes(path_, 3, 4)), "3456");
  EXPECT_EQ(text_of(read_file_bytes(path_, 10, 0)), "");
  EXPECT_THROW(read_file_bytes(path_, 8, 3), Error);
  EXPECT_THROW(read_file_bytes(path_, 2, ~size_t{0}), Error) << "offset + count overflows";
  overwrite_file_bytes(path_, 2, std::as_bytes(std::span("ab", 2)));
  EXPECT_EQ(text_of(read_file_bytes(path_)), "01ab456789");
}

/// In a child, because nothing can be written afterwards.
TEST_F(FileIo, NothingIsLeftOfWritesThatAProcessGivesUp) {
  atomic_write_text(path_, "old");
  const pid_t child = fork();
  if (child == 0) {
    atomic_write(path_, [](const std::filesystem::path& temporary) {
      std::ofstream(temporary) << "half";
      discard_temporaries();
      _exit(std::filesystem::exists(temporary) ? 1 : 0);
    });
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(text_of(read_file_bytes(path_)), "old");
  EXPECT_EQ(files_in(folder_.path()), 1U);
}

TEST_F(FileIo, LeftoversAreRemovedAndNothingElse) {
  const std::vector<std::string> kept = {"a.txt", "b.tmp", "c.tmp-notes", "d.tmp-0123456789abcdeX",
                                         ".tmp-0123456789abcdef"};
  for (const std::string& name : kept) atomic_write_text(folder_ / name, "x");
  std::ofstream(folder_ / "checkpoint.h5.tmp-0123456789abcdef") << "x";
  std::ofstream(folder_ / "other.tmp-00000000ffffffff") << "x";
  EXPECT_EQ(remove_leftover_temporaries(folder_.path()), 2u);
  EXPECT_EQ(files_in(folder_.path()), kept.size());
  EXPECT_EQ(remove_leftover_temporaries(folder_.path()), 0u);
  EXPECT_THROW(remove_leftover_temporaries(folder_ / "none"), Error);
}

TEST_F(FileIo, MappingOutlivesTheFileName) {
  atomic_write_text(path_, "mapped");
  MappedFile file(path_);
  atomic_write_text(path_, "replaced");
  EXPECT_EQ(text_of(file.bytes()), "mapped");
  std::filesystem::remove(path_);
  MappedFile moved = std::move(file);
  EXPECT_EQ(text_of(moved.bytes()), "mapped");
  EXPECT_EQ(file.size(), 0u);
  moved = MappedFile();
  EXPECT_EQ(moved.size(), 0u);
}

}  // namespace
}  // namespace qn
