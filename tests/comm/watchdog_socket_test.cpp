// The watchdog's connections, with both ends in one process.
#include "comm/watchdog_socket.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

namespace qn {
namespace {

constexpr double kPatience = 10.0;

WatchMessage message(int rank, const char* text = "") {
  WatchMessage m;
  m.rank = rank;
  copy_text(text, m.text.data(), m.text.size());
  return m;
}

/// The next message, waited for; none when the other side has closed.
std::optional<WatchMessage> next(WatchSocket& socket) {
  while (socket.open()) {
    wait_readable({socket.descriptor()}, kPatience);
    if (auto m = socket.receive()) return m;
  }
  return std::nullopt;
}

WatchSocket accepted_by(WatchListener& listener) {
  wait_readable({listener.descriptor()}, kPatience);
  return listener.accept();
}

class Connection : public testing::Test {
 protected:
  WatchListener listener_{true};
  WatchSocket near_ = connect_to(listener_.addresses()[0], listener_.port(), kPatience);
  WatchSocket far_ = accepted_by(listener_);
};

TEST_F(Connection, CarriesMessagesInOrder) {
  ASSERT_TRUE(near_.open() && far_.open());
  EXPECT_FALSE(far_.receive());
  EXPECT_TRUE(far_.open()) << "nothing to read is no end";
  for (int i = 0; i < 20; ++i) near_.send(message(i, "some text"));
  for (int i = 0; i < 20; ++i) {
    const auto m = next(far_);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->rank, i);
    EXPECT_STREQ(m->text.data(), "some text");
  }
}

TEST_F(Connection, PutsPiecesTogether) {
  const WatchMessage sent = message(5, "in pieces");
  std::array<std::byte, sizeof(WatchMessage)> bytes{};
  std::memcpy(bytes.data(), &sent, sizeof(sent));
  for (size_t begin = 0; begin < bytes.size(); begin += 100) {
    EXPECT_FALSE(far_.receive());
    const size_t count = std::min<size_t>(100, bytes.size() - begin);
    ASSERT_EQ(::send(near_.descriptor(), bytes.data() + begin, count, 0), static_cast<ssize_t>(count));
  }
  const auto received = next(far_);
  ASSERT_TRUE(received);
  EXPECT_STREQ(received->text.data(), "in pieces");
}

TEST_F(Connection, ReadsLastWordsBeforeTheEnd) {
  near_.send(message(1, "goodbye"));
  near_.close();
  far_.send(message(0));  // too late, and no error
  const auto m = next(far_);
  ASSERT_TRUE(m);
  EXPECT_STREQ(m->text.data(), "goodbye");
  EXPECT_FALSE(next(far_));
  EXPECT_FALSE(far_.open());
}

TEST_F(Connection, DoesNotWaitForAReaderWhoSleeps) {
  // Far more than fits into the buffers of the system; what does not fit is left out, whole messages only.
  for (int i = 0; i < 100000; ++i) near_.send(message(i));
  near_.send(message(-7));
  int last = -1, received = 0;
  while (auto m = far_.receive()) {
    EXPECT_GT(m->rank, last);
    last = m->rank;
    ++received;
  }
  EXPECT_GT(received, 0);
  EXPECT_LT(received, 100000);
  EXPECT_TRUE(far_.open());
}

TEST_F(Connection, DrainsUntilTheOtherSideCloses) {
  near_.send(message(1, "last"));
  far_.send(message(0, "unread"));  // would turn the end into a reset without draining
  near_.drain(0.2);
  EXPECT_TRUE(near_.open()) << "the other side has not closed";
  ASSERT_TRUE(next(far_));
  EXPECT_FALSE(next(far_));
  near_.drain(kPatience);
  EXPECT_FALSE(near_.open());
}

TEST(WatchListener, CanBeReachedThroughTheMachinesNetwork) {
  std::unique_ptr<WatchListener> listener;
  try {
    listener = std::make_unique<WatchListener>(false);
  } catch (const std::exception& error) {
    GTEST_SKIP() << error.what();
  }
  for (const std::string& address : listener->addresses())
    EXPECT_TRUE(connect_to(address, listener->port(), kPatience).open()) << address;
}

TEST(ConnectTo, GivesUp) {
  int port = 0;
  {
    const WatchListener closed(true);
    port = closed.port();
  }
  EXPECT_FALSE(connect_to("127.0.0.1", port, 1.0).open());
  EXPECT_FALSE(connect_to("no address", port, 1.0).open());
}

TEST(CopyText, EndsWithZero) {
  std::array<char, 4> to{'x', 'x', 'x', 'x'};
  copy_text("abcdef", to.data(), to.size());
  EXPECT_STREQ(to.data(), "abc");
}

}  // namespace
}  // namespace qn
