// SPLIT.sum, beside SPLIT.bin and SPLIT.idx: what their bytes are and which dictionary the ids belong to, so that data
// that were changed, damaged or left over from another dictionary are noticed (docs/formats.md, section 3). Folders
// made by fairseq-preprocess have none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace qn {

struct SplitChecksum {
  uint64_t bin = 0, idx = 0;  ///< XXH3 of the files
  uint64_t dictionary = 0;    ///< Dictionary::hash()
  bool operator==(const SplitChecksum&) const = default;
};

/// Of PREFIX.sum; nothing where there is no such file. Throws qn::Error when it is something else.
std::optional<SplitChecksum> read_split_checksum(const std::filesystem::path& prefix);
/// Reads PREFIX.bin and PREFIX.idx once and writes PREFIX.sum.
void write_split_checksum(const std::filesystem::path& prefix, uint64_t dictionary_hash);

/// Writes dict.sum beside a dict.txt, dict.en.sum beside a dict.en.txt.
void write_dictionary_checksum(const std::filesystem::path& dictionary);
void remove_dictionary_checksum(const std::filesystem::path& dictionary);
/// Warns where there is a dict.sum and `content`, the bytes of the dict.txt beside it, is not what it was made of. What
/// its words are is a matter of the splits' checksums; this one knows the counts as well.
void check_dictionary_checksum(const std::filesystem::path& dictionary, std::span<const std::byte> content);

/// Writes `text` to `path`, and its checksum to PATH.sum.
void write_text_with_checksum(const std::filesystem::path& path, std::string_view text);
/// Throws qn::Error where there is a PATH.sum and it is not of `text`, what `path` holds.
void check_text_checksum(const std::filesystem::path& path, std::string_view text);

}  // namespace qn
