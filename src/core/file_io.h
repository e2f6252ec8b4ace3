// Reading, memory mapping, and writing that leaves either the old file or the complete new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file_descriptor.h"

namespace qn {

/// What is at `path`, links followed, if no regular file may be put in its place: "a folder", "a pipe", ...; else
/// empty.
std::string obstacle_at(const std::filesystem::path& path);

/// The file that is written where `path` is named: a symbolic link stays and its target, which need not exist, is
/// written. Throws qn::Error where there is an obstacle.
std::filesystem::path output_target(const std::filesystem::path& path);

/// Calls `write` with the path of a temporary file beside output_target(path) (it exists, empty; write to it in place),
/// then syncs it to disk and renames it to that target: a crash at any moment leaves the old file or the complete new
/// one. The temporary file is removed when anything throws; a killed process leaves it behind, see
/// remove_leftover_temporaries(). Throws qn::Error naming the path and the reason (no space, no permission, no such
/// folder, no regular file) and whatever `write` throws.
void atomic_write(const std::filesystem::path& path,
                  const std::function<void(const std::filesystem::path& temporary)>& write);

/// The same for content that is in memory.
void atomic_write(const std::filesystem::path& path, std::span<const std::byte> content);
void atomic_write_text(const std::filesystem::path& path, std::string_view content);

/// Removes what killed processes left of atomic_write() calls for files in `directory`; returns how many files. Only
/// for the one process that owns the folder: a temporary file that is being written looks the same.
size_t remove_leftover_temporaries(const std::filesystem::path& directory);

/// Removes the temporary files of atomic_write() calls that are under way and lets none become its file any more: other
/// threads wait for ever in there. Only for a process that ends next, without destructors.
void discard_temporaries();

/// Whether discard_temporaries() removes `path` too: a complete file that has not been found good yet.
void mark_temporary(const std::filesystem::path& path, bool temporary);

/// All that comes out of a pipe or device, waiting for it; for a pipe that nobody opens to write, 10 s. Throws
/// qn::Error naming the path.
std::string read_pipe(const std::filesystem::path& path);

/// The whole file, which must be a regular one. Throws qn::Error naming the path and the reason.
std::vector<std::byte> read_file_bytes(const std::filesystem::path& path);

/// Bytes [offset, offset + count) of a file; throws as above and when the file is shorter.
std::vector<std::byte> read_file_bytes(const std::filesystem::path& path, size_t offset, size_t count);

/// The first `limit` bytes of a file, or all where there are fewer; throws as the first.
std::vector<std::byte> read_file_head(const std::filesystem::path& path, size_t limit);

/// Replaces bytes [offset, offset + content.size()) of an existing file in place.
void overwrite_file_bytes(const std::filesystem::path& path, size_t offset, std::span<const std::byte> content);

/// A file that grows at its end, text by text.
class AppendedFile {
 public:
  /// Opens `path`, which is made if need be; without `keep` it is emptied. Throws qn::Error naming path and reason.
  AppendedFile(const std::filesystem::path& path, bool keep);

  /// Writes all of `text` and hands it to the operating system, or throws as above; then the file is as before, and the
  /// same text may be tried again.
  void append(std::string_view text);

 private:
  FileDescriptor file_;
  size_t size_ = 0;
};

/// A file mapped read-only into memory: pages are read on first use and shared by all processes of a machine. The
/// mapping keeps a file alive that is replaced or deleted meanwhile; truncating a mapped file in place is not allowed.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws qn::Error naming the path and the reason. An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qn
