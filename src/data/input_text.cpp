#include "data/input_text.h"

#include "core/error.h"
#include "core/file_kind.h"
#include "data/text_scanner.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

}  // namespace

InputText::InputText(const fs::path& path, const std::string& split) : path_(path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  QN_CHECK_USAGE(fs::exists(status), "{}: no such file (text of the {} split)", name(), split);
  QN_CHECK(!fs::is_directory(status), "{} is a directory; name a text file for the {} split", name(), split);
  if (fs::is_regular_file(status)) {
    file_ = MappedFile(path);
  } else {
    QN_CHECK(fs::is_fifo(status) || fs::is_character_file(status), "{} is neither a file nor a pipe", name());
    piped_ = read_pipe(path);
  }
  QN_CHECK(!view().empty(), "{}: the {} is empty; there is nothing to prepare for {}", name(),
           fs::is_regular_file(status) ? "file" : "pipe", split);
  check_is_text(name(), view());
}

std::string_view InputText::view() const {
  return without_bom(piped_.empty() ? as_text(file_.bytes()) : std::string_view(piped_));
}

void check_is_text(const std::string& name, std::string_view content) {
  const FileKind kind = kind_of_file(name, content);
  if (kind == FileKind::text || kind == FileKind::empty) return;
  if (const char* command = command_to_text(kind))
    fail("{} is {}: make UTF-8 text of it first, for instance with '{} > text.txt'", name, description(kind),
         fmt::format(fmt::runtime(command), name));
  // Bytes that are no UTF-8 are for the scanner to point at, with line and position.
  QN_CHECK(kind == FileKind::binary, "{} is {}, not a text", name, description(kind));
}

std::string_view without_bom(std::string_view text) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

}  // namespace qn
