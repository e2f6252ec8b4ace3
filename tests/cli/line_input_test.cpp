#include "cli/line_input.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "core/error.h"
#include "support/temp_dir.h"

namespace qn::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Lines = std::vector<std::string>;

TEST(LineInput, GivesWhatIsThere) {
  const test::TempDir dir;
  const std::string path = (dir.path() / "pipe").string();
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  std::ofstream writer;
  std::thread opening([&] { writer.open(path); });  // waits for a reader
  LineInput input(path, "--text");
  opening.join();
  writer << "one\ntwo\r\n\nhal" << std::flush;
  EXPECT_THAT(input.next(100), ElementsAre("one", "two", ""));  // and does not wait for more
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    writer << "f\nlast" << std::flush;
    writer.close();
  });
  EXPECT_THAT(input.next(1), ElementsAre("half"));  // waits where there is none
  later.join();
  EXPECT_THAT(input.next(100), ElementsAre("last"));
  EXPECT_THAT(input.next(100), IsEmpty());
}

TEST(LineInput, ReadsAFileInPieces) {
  const test::TempDir dir;
  const auto path = dir.path() / "text";
  Lines lines;
  for (int i = 0; i < 5000; ++i) lines.push_back(std::string(static_cast<size_t>(i % 97), 'x') + std::to_string(i));
  lines.push_back(std::string(200'000, 'y'));  // longer than what is read at once
  {
    std::ofstream out(path);
    for (const std::string& line : lines) out << line << '\n';
  }
  LineInput input(path.string(), "--text");
  Lines read;
  for (Lines next; !(next = input.next(700)).empty(); read.insert(read.end(), next.begin(), next.end()))
    EXPECT_LE(next.size(), 700u);
  EXPECT_EQ(read, lines);
}

TEST(LineInput, AByteOrderMarkIsNoPartOfALine) {
  const test::TempDir dir;
  const auto path = dir.path() / "text";
  std::ofstream(path) << "\xef\xbb\xbfone\r\n\xef\xbb\xbftwo\n";
  LineInput input(path.string(), "--text");
  EXPECT_THAT(input.next(1), ElementsAre("one"));
  EXPECT_THAT(input.next(1), ElementsAre("\xef\xbb\xbftwo"));
  std::ofstream(path) << "\xef\xbb\xbf";
  EXPECT_THAT(LineInput(path.string(), "--text").next(9), ElementsAre(""));
}

TEST(LineInput, NamesWhatItCannotRead) {
  EXPECT_THROW(LineInput("/no/such/file", "--text"), UsageError);
  LineInput folder("/", "--text");
  EXPECT_THROW(folder.next(1), Error);
}

}  // namespace
}  // namespace qn::cli
