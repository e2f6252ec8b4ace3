// The seal of a checkpoint: checksums of every byte of an HDF5 file, in the free block before its HDF5 content. It is
// checked before HDF5 reads anything, because the library may hang or crash on damaged files. It is text:
//
//   quantnoise-checkpoint    1
//   block          512 file              9216 structure 0123456789abcdef checksum fedcba9876543210
//   0011223344556677 2048 400 tensors/model/weight
//
// Format version; bytes of the block and of the file; XXH3 of everything outside the block and the listed sections;
// XXH3 of the block (this field taken as zeros). Then per dataset the XXH3 of its bytes, offset, number of bytes and
// name; zero bytes fill the block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/error.h"
#include "core/file_kind.h"

namespace qn {

/// The file is truncated, altered, incomplete, or of another kind altogether; an older checkpoint may do.
class DamagedCheckpoint : public Error {
 public:
  using Error::Error;
};

/// A dataset's bytes within the file.
struct SealedSection {
  std::string name;  ///< one line
  uint64_t offset = 0, bytes = 0, checksum = 0;
};

/// Size of the block for sections with these names: a power of two, at least 512.
size_t seal_block_bytes(std::span<const std::string> names);

/// Writes the block into a finished file, whose first seal_block_bytes() bytes are free. Sections must not overlap.
void write_seal(const std::filesystem::path& path, std::span<const SealedSection> sections);

/// Reads the whole file and compares every checksum. Throws DamagedCheckpoint naming the file and the dataset or part
/// that does not match; qn::Error when the file cannot be read or its format is newer than this program.
void verify_seal(const std::filesystem::path& path);

/// The bytes of one dataset, without the rest of the file; empty when it has none of that name. Throws as above.
std::string read_sealed(const std::filesystem::path& path, const std::string& name);

/// 16 digits that stand for all of the content: the block's own checksum. Reads the block only; throws as above.
std::string seal_checksum(const std::filesystem::path& path);

}  // namespace qn
