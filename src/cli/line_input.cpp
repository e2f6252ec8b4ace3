#include "cli/line_input.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "data/input_text.h"

namespace qn::cli {

LineInput::LineInput(const std::string& path, const std::string& option)
    : path_(path == "-" ? "standard input" : path),
      fd_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  QN_CHECK_USAGE(fd_ >= 0, "{}: cannot read {}: {}", option, path, std::strerror(errno));
}

LineInput::~LineInput() {
  if (fd_ != STDIN_FILENO) close(fd_);
}

bool LineInput::has_more() const {
  pollfd input{.fd = fd_, .events = POLLIN, .revents = 0};
  return poll(&input, 1, 0) > 0;
}

void LineInput::read_some() {
  constexpr size_t kPiece = size_t{64} << 10;
  buffer_.erase(0, begin_);
  searched_ -= begin_;
  begin_ = 0;
  const size_t size = buffer_.size();
  buffer_.resize(size + kPiece);
  ssize_t got = 0;
  do got = read(fd_, buffer_.data() + size, kPiece);
  while (got < 0 && errno == EINTR);
  buffer_.resize(size + static_cast<size_t>(std::max<ssize_t>(got, 0)));
  QN_CHECK(got >= 0, "{}: cannot read: {}", path_, std::strerror(errno));
  ended_ = got == 0;
}

std::string LineInput::take(size_t end) {
  std::string_view line = std::string_view(buffer_).substr(begin_, end - begin_);
  if (first_) line = without_bom(line);
  first_ = false;
  if (line.ends_with('\r')) line.remove_suffix(1);
  return std::string(line);
}

std::vector<std::string> LineInput::next(size_t most) {
  std::vector<std::string> lines;
  while (lines.size() < most) {
    const size_t end = buffer_.find('\n', searched_);
    if (end == std::string::npos) {
      searched_ = buffer_.size();
      if (ended_ || (!lines.empty() && !has_more())) break;
      read_some();
      continue;
    }
    lines.push_back(take(end));
    begin_ = searched_ = end + 1;
  }
  if (ended_ && lines.size() < most && begin_ < buffer_.size()) {  // the last line has no end
    lines.push_back(take(buffer_.size()));
    begin_ = searched_ = buffer_.size();
  }
  return lines;
}

}  // namespace qn::cli
