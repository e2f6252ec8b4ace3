// What a file is, by its first bytes: so that a file of the wrong kind is named as what it is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace qn {

enum class FileKind : uint8_t {
  empty,
  folder,
  checkpoint,    ///< begins as a quantnoise checkpoint does
  hdf5,          ///< any other HDF5 file
  safetensors,   ///< packed or not
  token_index,   ///< .idx of binarized text
  token_stream,  ///< .bin of binarized text: only its .idx beside it tells
  profile,       ///< written by --profile
  images,        ///< a split of prepared images
  gzip,
  zstd,
  bzip2,
  xz,
  zip,      ///< also PyTorch's checkpoints
  pickle,   ///< of Python; also PyTorch's older checkpoints
  git_lfs,  ///< what Git has in place of a large file
  utf16,    ///< with a byte order mark, or in the order of most machines
  utf32,
  utf16_big,  ///< the other order, without a mark
  utf32_big,
  text,    ///< UTF-8 without NUL bytes
  binary,  ///< none of these
};

/// How every checkpoint begins.
inline constexpr const char* kCheckpointMagic = "quantnoise-checkpoint";
/// How every .idx file of fairseq's (and Megatron's) mmap format begins.
inline constexpr std::string_view kTokenIndexMagic{"MMIDIDX\0\0", 9};
/// How every file of --profile begins.
inline constexpr std::string_view kProfileBeginning = R"({"displayTimeUnit":"ms","otherData":)";

/// How every split of prepared images begins.
inline constexpr std::string_view kPreparedImagesMagic = "QNIMAGES";

/// Of content that begins with `head`; the more of it the better, 4 KiB are enough.
FileKind kind_of(std::string_view head);
/// Of the file at `path`, which begins with `head`.
FileKind kind_of_file(const std::filesystem::path& path, std::string_view head);
/// Reads the beginning. Throws qn::Error when there is no such file, or it is neither a file nor a folder.
FileKind kind_of_file(const std::filesystem::path& path);

/// The whole file, or what comes out of a pipe, which must not be of a kind that is no text. Throws qn::Error naming
/// the path and the kind.
std::string read_text_file(const std::filesystem::path& path);

/// "a safetensors file", "compressed with gzip"
const char* description(FileKind kind);
/// What to do with a file of this kind where weights in safetensors are due: "; unpack it first". Empty where there is
/// nothing to say.
const char* way_to_safetensors(FileKind kind);
/// The command that makes UTF-8 text of such a file, with {} for its name, or nullptr.
const char* command_to_text(FileKind kind);

}  // namespace qn
