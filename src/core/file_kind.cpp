#include "core/file_kind.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"
#include "core/file_io.h"

namespace qn {
namespace {

using namespace std::string_view_literals;

constexpr size_t kHeadBytes = 4096;
constexpr size_t kFirstUserBlock = 512;  // HDF5 content begins at 0, 512 or a power of two beyond

struct Signature {
  std::string_view bytes;
  FileKind kind;
};
// UTF-32's byte order mark begins as UTF-16's does.
constexpr std::array kSignatures = {Signature{kCheckpointMagic, FileKind::checkpoint},
                                    Signature{kTokenIndexMagic, FileKind::token_index},
                                    Signature{kProfileBeginning, FileKind::profile},
                                    Signature{kPreparedImagesMagic, FileKind::images},
                                    Signature{"\x1f\x8b"sv, FileKind::gzip},
                                    Signature{"\x28\xb5\x2f\xfd"sv, FileKind::zstd},
                                    Signature{"\xfd\x37zXZ\0"sv, FileKind::xz},
                                    Signature{"PK\x03\x04"sv, FileKind::zip},
                                    Signature{"version https://git-lfs"sv, FileKind::git_lfs},
                                    Signature{"\xff\xfe\0\0"sv, FileKind::utf32},
                                    Signature{"\0\0\xfe\xff"sv, FileKind::utf32},
                                    Signature{"\xff\xfe"sv, FileKind::utf16},
                                    Signature{"\xfe\xff"sv, FileKind::utf16}};

bool is_hdf5(std::string_view head) {
  constexpr auto kMagic = "\x89HDF\r\n\x1a\n"sv;
  if (head.starts_with(kMagic)) return true;
  for (size_t at = kFirstUserBlock; at < head.size(); at *= 2)
    if (head.substr(at).starts_with(kMagic)) return true;
  return false;
}

/// 8 bytes of length (no header is longer than 100 MB), then JSON.
bool is_safetensors(std::string_view head) {
  return head.size() > 9 && head.substr(4, 4) == "\0\0\0\0"sv && head[8] == '{';
}

/// Texts of Latin letters, spaces and digits in 16 or 32 bits: all bytes of some places are NUL, others never are.
FileKind wide_text(std::string_view head) {
  std::array<size_t, 4> zeros{};
  const size_t rows = head.size() / 4;
  for (size_t i = 0; i < rows * 4; ++i) zeros[i % 4] += head[i] == '\0';
  const auto none = [&](size_t place) { return zeros[place] == 0; };
  const auto most = [&](size_t place) { return zeros[place] * 10 >= rows * 9; };
  if (rows < 2) return FileKind::binary;
  if (none(0) && most(1) && zeros[2] == rows && zeros[3] == rows) return FileKind::utf32;
  if (zeros[0] == rows && zeros[1] == rows && most(2) && none(3)) return FileKind::utf32_big;
  if (none(0) && most(1) && none(2) && most(3)) return FileKind::utf16;
  if (most(0) && none(1) && most(2) && none(3)) return FileKind::utf16_big;
  return FileKind::binary;
}

/// PREFIX.bin beside a PREFIX.idx that begins as such files do. The ids themselves may look like anything.
bool is_token_stream(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::path index = std::filesystem::path(path).replace_extension(".idx");
  if (path.extension() != ".bin" || !std::filesystem::is_regular_file(index, error)) return false;
  const std::vector<std::byte> head = read_file_head(index, kTokenIndexMagic.size());
  return kind_of({reinterpret_cast<const char*>(head.data()), head.size()}) == FileKind::token_index;
}

/// Protocol 2 to 5, which begins with its number.
bool is_pickle(std::string_view head) { return head.size() > 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5; }

bool is_text(std::string_view head) {
  return std::none_of(head.begin(), head.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == 0 || byte == 0xc0 || byte == 0xc1 || byte >= 0xf5;  // bytes that UTF-8 has no use for
  });
}

}  // namespace

FileKind kind_of(std::string_view head) {
  if (head.empty()) return FileKind::empty;
  for (const Signature& s : kSignatures)
    if (head.starts_with(s.bytes)) return s.kind;
  if (head.starts_with("BZh") && head.size() > 4 && head.substr(4).starts_with("1AY&SY")) return FileKind::bzip2;
  if (is_hdf5(head)) return FileKind::hdf5;
  if (is_safetensors(head)) return FileKind::safetensors;
  if (is_pickle(head)) return FileKind::pickle;
  return is_text(head) ? FileKind::text : wide_text(head);
}

FileKind kind_of_file(const std::filesystem::path& path, std::string_view head) {
  return !head.empty() && is_token_stream(path) ? FileKind::token_stream : kind_of(head.substr(0, kHeadBytes));
}

FileKind kind_of_file(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return FileKind::folder;
  const std::vector<std::byte> head = read_file_head(path, kHeadBytes);
  return kind_of_file(path, {reinterpret_cast<const char*>(head.data()), head.size()});
}

std::string read_text_file(const std::filesystem::path& path) {
  std::error_code error;
  std::string text;
  if (std::filesystem::is_fifo(path, error)) {
    text = read_pipe(path);
  } else {
    const std::vector<std::byte> bytes = read_file_bytes(path);
    text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  const FileKind kind = kind_of_file(path, text);
  const bool fits = kind == FileKind::text || kind == FileKind::empty || kind == FileKind::utf16 ||
                    kind == FileKind::utf32;  // readers of YAML take these
  QN_CHECK(fits, "{} is no text file: it is {}", path.string(), description(kind));
  return text;
}

const char* description(FileKind kind) {
  switch (kind) {
    case FileKind::empty:
      return "an empty file";
    case FileKind::folder:
      return "a folder";
    case FileKind::checkpoint:
      return "a quantnoise checkpoint";
    case FileKind::hdf5:
      return "an HDF5 file without the beginning of a quantnoise checkpoint";
    case FileKind::safetensors:
      return "a safetensors file (a packed model, or another program's weights)";
    case FileKind::token_index:
      return "an index of binarized text (.idx)";
    case FileKind::token_stream:
      return "binarized text (.bin, with its .idx beside it)";
    case FileKind::profile:
      return "a profile (Chrome trace)";
    case FileKind::images:
      return "a split of prepared images (.images)";
    case FileKind::gzip:
      return "compressed with gzip";
    case FileKind::zstd:
      return "compressed with zstd";
    case FileKind::bzip2:
      return "compressed with bzip2";
    case FileKind::xz:
      return "compressed with xz";
    case FileKind::zip:
      return "a zip archive (PyTorch's checkpoints are, too)";
    case FileKind::pickle:
      return "a pickle of Python's (PyTorch's older checkpoints are)";
    case FileKind::git_lfs:
      return "Git LFS's note of where the file is, not the file";
    case FileKind::utf16:
    case FileKind::utf16_big:
      return "text in UTF-16";
    case FileKind::utf32:
    case FileKind::utf32_big:
      return "text in UTF-32";
    case FileKind::text:
      return "a text file";
    case FileKind::binary:
      return "a binary file of no known kind";
  }
  QN_ASSERT(false, "unknown kind");
}

const char* way_to_safetensors(FileKind kind) {
  switch (kind) {
    case FileKind::zip:
    case FileKind::pickle:
      return "; if it is PyTorch's, write it anew with save_file() of its package safetensors.torch";
    case FileKind::hdf5:
      return "; write it anew with the package safetensors of the program that made it";
    case FileKind::checkpoint:
      return "; `quantnoise quantize` makes a packed file of a checkpoint, `quantnoise export --to hf` a plain one";
    case FileKind::gzip:
    case FileKind::zstd:
    case FileKind::bzip2:
    case FileKind::xz:
      return "; unpack it first";
    case FileKind::git_lfs:
      return "; get it with `git lfs pull`";
    default:
      return "";
  }
}

const char* command_to_text(FileKind kind) {
  switch (kind) {
    case FileKind::gzip:
      return "gzip -dc {}";
    case FileKind::zstd:
      return "zstd -dc {}";
    case FileKind::bzip2:
      return "bzip2 -dc {}";
    case FileKind::xz:
      return "xz -dc {}";
    case FileKind::zip:
      return "unzip -p {}";
    case FileKind::utf16:
      return "iconv -f UTF-16 -t UTF-8 {}";
    case FileKind::utf32:
      return "iconv -f UTF-32 -t UTF-8 {}";
    case FileKind::utf16_big:
      return "iconv -f UTF-16BE -t UTF-8 {}";
    case FileKind::utf32_big:
      return "iconv -f UTF-32BE -t UTF-8 {}";
    default:
      return nullptr;
  }
}

}  // namespace qn
