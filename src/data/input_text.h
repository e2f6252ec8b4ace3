// A text as people have it: a file, or a pipe (process substitution, /dev/stdin), which is read into memory because it
// can be read only once. What is no UTF-8 text is named as what it is, with the command that makes one of it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/file_io.h"

namespace qn {

class InputText {
 public:
  /// `split` is for messages. Throws qn::Error for a missing or empty file, a folder, compressed files, UTF-16 and the
  /// like. That all of it is UTF-8 is for scan_text() to see.
  InputText(const std::filesystem::path& path, const std::string& split);

  const std::filesystem::path& path() const { return path_; }
  std::string name() const { return path_.string(); }
  /// Without the byte order mark that it may begin with. Valid as long as this object, also after moves.
  std::string_view view() const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::string piped_;
};

/// Throws qn::Error, for instance "x.gz is compressed with gzip: ...", when `content` begins as no text does.
void check_is_text(const std::string& name, std::string_view content);

/// Text behind UTF-8's byte order mark, which editors on Windows write.
std::string_view without_bom(std::string_view text);

}  // namespace qn
