#include "cli/output.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <iostream>
#include <streambuf>
#include <system_error>

#include "cli/commands.h"

namespace qn::cli {
namespace {

/// Standard output with a buffer. After the first error everything is swallowed.
class Output final : public std::streambuf {
 public:
  Output() { setp(buffer_.data(), buffer_.data() + buffer_.size()); }

  int error() const { return error_; }

 protected:
  int_type overflow(int_type c) override {
    write_all();
    if (!traits_type::eq_int_type(c, traits_type::eof())) sputc(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }
  int sync() override {
    write_all();
    return 0;
  }

 private:
  void write_all() {
    for (const char* next = pbase(); next < pptr() && error_ == 0;) {
      const ssize_t put = ::write(STDOUT_FILENO, next, static_cast<size_t>(pptr() - next));
      if (put >= 0)
        next += put;
      else if (errno != EINTR)
        error_ = errno;
    }
    setp(buffer_.data(), buffer_.data() + buffer_.size());
  }

  std::array<char, 1 << 16> buffer_{};
  int error_ = 0;
};

/// Lives as long as the program: std::cout may be used until its end.
Output& output() {
  static auto* instance = new Output;
  return *instance;
}

}  // namespace

void guard_output() {
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    // Opened for reading, standard output fails as a closed one does.
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF)
      static_cast<void>(::open("/dev/null", stream == STDERR_FILENO ? O_WRONLY : O_RDONLY));
  std::cout.rdbuf(&output());
}

int finish_output(int status) {
  std::cout.flush();
  const int error = output().error();
  if (error == 0) return status;
  if (error == EPIPE) return status == kSuccess ? kClosedPipe : status;
  spdlog::error("the output could not be written: {}; repeat the command with another place for it",
                std::generic_category().message(error));
  return status == kSuccess ? kFailure : status;
}

}  // namespace qn::cli
