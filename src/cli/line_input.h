// Lines of a file or of standard input, as many at a time as are there: an answer must not wait for lines that nobody
// has written yet.
#pragma once

#include <string>
#include <vector>

namespace qn::cli {

class LineInput {
 public:
  /// `path` is that of the option `option`, "-" is standard input. Throws qn::UsageError when it cannot be read.
  LineInput(const std::string& path, const std::string& option);
  ~LineInput();
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;

  /// The next lines, without their ends (\n or \r\n), nor the byte order mark that a text may begin with: up to `most`
  /// of those that can be read without waiting, but at least one; none at the end. Throws qn::Error when reading fails.
  std::vector<std::string> next(size_t most);

 private:
  bool has_more() const;
  void read_some();
  std::string take(size_t end);  ///< the line from begin_ to there

  std::string path_;
  int fd_;
  std::string buffer_;   // what is read
  size_t begin_ = 0;     // of what next() has not returned
  size_t searched_ = 0;  // there is no line's end in buffer_[begin_, searched_)
  bool ended_ = false, first_ = true;
};

}  // namespace qn::cli
