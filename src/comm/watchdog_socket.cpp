#include "comm/watchdog_socket.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "core/error.h"

namespace qn {
namespace {

int milliseconds(double seconds) { return static_cast<int>(std::ceil(std::max(seconds, 0.0) * 1e3)); }

std::string text_of(const in_addr& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &address, text.data(), text.size());
  return text.data();
}

/// IPv4 addresses of the networks that are up, loopback left out.
std::vector<std::string> own_addresses() {
  ifaddrs* list = nullptr;
  QN_CHECK(getifaddrs(&list) == 0, "cannot list this machine's networks: {}", std::strerror(errno));
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  std::vector<std::string> addresses;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    sockaddr_in address{};
    std::memcpy(&address, entry->ifa_addr, sizeof(address));
    addresses.push_back(text_of(address.sin_addr));
  }
  return addresses;
}

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

void copy_text(std::string_view text, char* to, size_t size) {
  const size_t length = std::min(text.size(), size - 1);
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this == &other) return *this;
  if (fd_ >= 0) ::close(fd_);
  fd_ = other.release();
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int Descriptor::release() { return std::exchange(fd_, -1); }

WatchSocket::WatchSocket(Descriptor socket) : socket_(std::move(socket)) {
  const int on = 1;
  if (open()) setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

void WatchSocket::flush() {
  while (open() && unsent_ > 0) {
    const ssize_t sent = ::send(socket_.get(), out_.data() + out_.size() - unsent_, unsent_, MSG_NOSIGNAL);
    if (sent > 0) {
      unsent_ -= static_cast<size_t>(sent);
    } else {
      // A broken connection is for receive() to notice: the other side's last words may still be there.
      if (!would_block()) unsent_ = 0;
      return;
    }
  }
}

void WatchSocket::send(const WatchMessage& message) {
  flush();
  if (!open() || unsent_ > 0) return;
  std::memcpy(out_.data(), &message, sizeof(message));
  unsent_ = out_.size();
  flush();
}

std::optional<WatchMessage> WatchSocket::receive() {
  while (open()) {
    const ssize_t count = ::recv(socket_.get(), in_.data() + received_, in_.size() - received_, 0);
    if (count < 0 && would_block()) return std::nullopt;
    if (count <= 0) {
      close();
      return std::nullopt;
    }
    received_ += static_cast<size_t>(count);
    if (received_ < in_.size()) continue;
    received_ = 0;
    WatchMessage message;
    std::memcpy(static_cast<void*>(&message), in_.data(), sizeof(message));
    message.doing.back() = message.text.back() = '\0';
    return message;
  }
  return std::nullopt;
}

void WatchSocket::drain(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  flush();
  if (open()) ::shutdown(socket_.get(), SHUT_WR);
  while (open() && Clock::now() < end) {
    wait_readable({socket_.get()}, std::chrono::duration<double>(end - Clock::now()).count());
    while (receive()) continue;
  }
}

WatchListener::WatchListener(bool local) {
  if (local)
    addresses_ = {"127.0.0.1"};
  else
    addresses_ = own_addresses();
  QN_CHECK(!addresses_.empty(), "this machine has no IPv4 network that is up");
  socket_ = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY);
  socklen_t size = sizeof(address);
  const bool listening = socket_.get() >= 0 &&
                         ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                         ::listen(socket_.get(), SOMAXCONN) == 0 &&
                         ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0;
  QN_CHECK(listening, "cannot listen on a TCP port: {}", std::strerror(errno));
  port_ = ntohs(address.sin_port);
}

WatchSocket WatchListener::accept() {
  return WatchSocket(Descriptor(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
}

WatchSocket connect_to(const std::string& address, int port, double seconds) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0 || inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return {};
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
    if (errno != EINPROGRESS) return {};
    pollfd poll_one{socket.get(), POLLOUT, 0};
    int error = 0;
    socklen_t size = sizeof(error);
    if (::poll(&poll_one, 1, milliseconds(seconds)) <= 0 ||
        ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0)
      return {};
  }
  return WatchSocket(std::move(socket));
}

std::vector<bool> wait_readable(const std::vector<int>& descriptors, double seconds) {
  std::vector<pollfd> polls;
  for (const int fd : descriptors) polls.push_back({fd, POLLIN, 0});
  ::poll(polls.data(), polls.size(), milliseconds(seconds));
  std::vector<bool> readable;
  for (const pollfd& p : polls) readable.push_back(p.revents != 0);
  return readable;
}

}  // namespace qn
