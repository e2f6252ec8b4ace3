// The watchdog's messages and the TCP connections that carry them. Nothing here blocks for longer than it says, and
// nothing throws after a connection is made: a broken connection is a finding, not an error.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace qn {

/// One size for all, so that a stream of bytes falls into messages by itself. Ranks of a job run the same program, so
/// the layout is the same everywhere.
struct WatchMessage {
  enum class Kind : uint32_t { heartbeat, finished, failed, verdict };
  std::array<uint64_t, 2> token{};  ///< drawn by rank 0 for this job: others that find the port are not listened to
  Kind kind = Kind::heartbeat;
  int32_t rank = -1;
  uint64_t collectives = 0, waits = 0;
  uint32_t waiting = 0;
  std::array<char, 32> doing{};
  std::array<char, 948> text{};  ///< a verdict, or a heartbeat's problem
};
static_assert(std::is_trivially_copyable_v<WatchMessage> && sizeof(WatchMessage) == 1024);

/// Copies as much of `text` as fits, with a terminating zero.
void copy_text(std::string_view text, char* to, size_t size);

/// A file descriptor that is closed with the object.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }
  int release();

 private:
  int fd_;
};

/// A non-blocking connection.
class WatchSocket {
 public:
  WatchSocket() = default;
  explicit WatchSocket(Descriptor socket);

  int descriptor() const { return socket_.get(); }  ///< -1 once closed
  bool open() const { return socket_.get() >= 0; }
  /// Sends, or leaves the message out when the other side has not taken the one before: the next heartbeat will do.
  void send(const WatchMessage& message);
  /// The next whole message that has arrived. Closes when the other side has.
  std::optional<WatchMessage> receive();
  /// Sends no more, and waits up to `seconds` until the other side closes: what was sent last is then known to have
  /// been read.
  void drain(double seconds);
  void close() { socket_ = Descriptor(); }

 private:
  void flush();

  Descriptor socket_;
  std::array<std::byte, sizeof(WatchMessage)> in_{}, out_{};
  size_t received_ = 0, unsent_ = 0;  ///< of out_, its last bytes
};

/// Listens on a free port: of this machine only if `local`, else on all its networks.
class WatchListener {
 public:
  /// Throws qn::Error.
  explicit WatchListener(bool local);
  int descriptor() const { return socket_.get(); }
  int port() const { return port_; }
  /// Where others may reach it: IPv4 addresses.
  const std::vector<std::string>& addresses() const { return addresses_; }
  /// The next connection that somebody made; not open if there is none.
  WatchSocket accept();

 private:
  Descriptor socket_;
  int port_ = 0;
  std::vector<std::string> addresses_;
};

/// Connects, within `seconds`; not open if that fails.
WatchSocket connect_to(const std::string& address, int port, double seconds);

/// Waits up to `seconds` until one of the descriptors can be read; negative ones are left out. One bool per descriptor.
std::vector<bool> wait_readable(const std::vector<int>& descriptors, double seconds);

}  // namespace qn
