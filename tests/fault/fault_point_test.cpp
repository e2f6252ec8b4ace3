// The seam at which drills make steps on files fail, and what writers and readers of files do then.
#include "core/fault_point.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "core/file_io.h"
#include "core/safetensors.h"
#include "data/token_stream.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Faults : public testing::Test {
 protected:
  Faults() : folder_(fs::temp_directory_path() / ("fault-" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~Faults() override {
    set_faults("");
    fs::remove_all(folder_);
  }

  fs::path in(const char* name) const { return folder_ / name; }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  static std::string text_of(const fs::path& path) {
    const std::vector<std::byte> bytes = read_file_bytes(path);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// What `action` says goes wrong; empty if nothing does.
  template <typename Action>
  static std::string failure_of(Action&& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  fs::path folder_;
};

TEST_F(Faults, AreRefusedWhereTheyAreNone) {
  for (const char* text : {"file.write", "=kill", "file.write=", "file.write=ENOPE", "x:0=kill", "x:=kill", "x@a=kill",
                           "x=wait", "x=wait-1", "x:-1=kill", "x=kill,,"})
    EXPECT_THROW(set_faults(text), UsageError) << text;
  EXPECT_NO_THROW(set_faults("file.write/run.json@0:3+=ENOSPC,train.update=wait5"));
}

TEST_F(Faults, FailEveryStepOfAnAtomicWriteAndLeaveTheOldFile) {
  atomic_write_text(in("a"), "old");
  for (const char* step : {"create", "write", "open", "sync", "rename"})
    for (const char* error : {"ENOSPC", "EIO"}) {
      set_faults(std::string("file.") + step + "/a=" + error);
      EXPECT_THAT(failure_of([&] { atomic_write_text(in("a"), "new"); }), HasSubstr(in("a").string())) << step;
      set_faults("");
      EXPECT_EQ(text_of(in("a")), "old") << step;
      EXPECT_EQ(files(), 1u) << step;
    }
}

TEST_F(Faults, CountVisitsOfTheirPointAndRankOnly) {
  set_faults("file.write/a:2=EIO,file.write/a:4+=EIO,file.write/a@1=EIO,file.write/b=EIO");
  std::string outcomes;
  for (int i = 0; i < 6; ++i) outcomes += failure_of([&] { atomic_write_text(in("a"), "x"); }).empty() ? '+' : '-';
  EXPECT_EQ(outcomes, "+-+---");
}

TEST_F(Faults, OfShortTransfersChangeNothing) {
  const std::string text = "some bytes that are written and read in two pieces";
  set_faults("file.write:1+=short,file.read:1+=short");
  atomic_write_text(in("a"), text);
  EXPECT_EQ(text_of(in("a")), text);
  SafetensorsWriter writer;
  writer.add("t", StoredType::u8, {4}, std::vector<uint8_t>{1, 2, 3, 4});
  writer.write(in("t.safetensors"));
  write_token_stream(in("valid"), 100, [](TokenStreamWriter& out) {
    for (int i = 0; i < 50; ++i) out.add_token(i);
    out.end_sentence();
  });
  set_faults("");
  EXPECT_EQ(SafetensorsReader(in("t.safetensors")).values<uint8_t>("t", StoredType::u8),
            (std::vector<uint8_t>{1, 2, 3, 4}));
  EXPECT_EQ(TokenStream(in("valid")).token(49), 49);
}

TEST_F(Faults, OfFilesThatBecomeShorterAreErrors) {
  atomic_write_text(in("a"), "0123456789");
  set_faults("file.read/a=end");
  EXPECT_THAT(failure_of([&] { read_file_bytes(in("a"), 0, 10); }), HasSubstr("became shorter"));
}

TEST_F(Faults, LeaveNoHalfPackedFileAndNoHalfSplit) {
  SafetensorsWriter writer;
  writer.add("t", StoredType::u8, {1}, std::vector<uint8_t>{1});
  for (const char* step : {"create", "write:1", "write:2", "write:3", "sync", "rename"}) {
    const size_t visit = std::string(step).find(':');
    const std::string name = std::string(step).substr(0, visit);
    set_faults("file." + name + (visit == std::string::npos ? "" : std::string(step).substr(visit)) + "=ENOSPC");
    EXPECT_THAT(failure_of([&] { writer.write(in("t.safetensors")); }), HasSubstr("free some space")) << step;
    EXPECT_EQ(files(), 0u) << step;
  }
  set_faults("file.write/valid.bin=EIO");
  EXPECT_THAT(
      failure_of([&] { write_token_stream(in("valid"), 100, [](TokenStreamWriter& out) { out.add_token(3); }); }),
      HasSubstr("valid.bin"));
  EXPECT_EQ(files(), 0u);
}

TEST_F(Faults, KillAndPause) {
  const auto start = std::chrono::steady_clock::now();
  set_faults("here:2=wait50");
  fault_point("here");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
  fault_point("here");
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
  const pid_t child = ::fork();
  if (child == 0) {
    set_faults("file.rename/a=kill");
    atomic_write_text(in("a"), "new");
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_FALSE(fs::exists(in("a")));
  EXPECT_EQ(remove_leftover_temporaries(in("a").parent_path()), 1u);
}

}  // namespace
}  // namespace qn
