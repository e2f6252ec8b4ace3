#include "train/checkpoint_seal.h"

#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <sstream>
#include <vector>

#include "core/file_io.h"
#include "core/text.h"
#include "train/whole_read.h"

namespace qn {
namespace {

constexpr unsigned kSealVersion = 1;
constexpr size_t kChecksumDigits = 16;
constexpr size_t kNumbersPerLine = 3 * 20;  // checksum, offset, bytes and separators at most

struct Header {
  unsigned version = kSealVersion;
  uint64_t block = 0, file = 0, structure = 0, checksum = 0;

  /// Always the same number of bytes; ends with the checksum and a line feed.
  std::string text() const {
    return fmt::format("quantnoise-checkpoint {:4}\nblock {:12} file {:17} structure {:016x} checksum {:016x}\n",
                       version, block, file, structure, checksum);
  }
};

const size_t kHeaderBytes = Header{}.text().size();

std::string checksummed(std::string block) {
  block.replace(kHeaderBytes - 1 - kChecksumDigits, kChecksumDigits, kChecksumDigits, '0');
  return hex64(hash_bytes(block.data(), block.size()));
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// XXH3 of what is neither in the block nor in a section: HDF5's own structures. `sections` are in file order.
uint64_t structure_checksum(const std::filesystem::path& path, const Header& header,
                            std::span<const SealedSection> sections) {
  std::vector<std::byte> structure;
  uint64_t end = header.block;
  const auto append_until = [&](uint64_t next) {
    QN_ASSERT(next >= end, "sections of {} overlap at {}", path.string(), next);
    const std::vector<std::byte> gap = read_file_bytes(path, end, next - end);
    structure.insert(structure.end(), gap.begin(), gap.end());
  };
  for (const SealedSection& section : sections) {
    if (section.bytes == 0) continue;  // empty datasets have no place in the file
    append_until(section.offset);
    end = section.offset + section.bytes;
  }
  append_until(header.file);
  return hash_bytes(structure.data(), structure.size());
}

[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& reason) {
  throw DamagedCheckpoint(fmt::format("checkpoint {} is damaged: {}; use an older one", path.string(), reason));
}

/// The beginning is not that of a checkpoint: the file is either of another kind or badly damaged.
[[noreturn]] void not_a_checkpoint(const std::filesystem::path& path) {
  const FileKind kind = kind_of_file(path);
  if (kind == FileKind::checkpoint || kind == FileKind::hdf5 || kind == FileKind::empty || kind == FileKind::binary)
    damaged(path,
            kind == FileKind::checkpoint ? "its first block is altered" : fmt::format("it is {}", description(kind)));
  throw DamagedCheckpoint(fmt::format("{} is no checkpoint: it is {}", path.string(), description(kind)));
}

/// The header as it stands at the start of the file, plausible but not yet verified.
Header read_header(const std::filesystem::path& path, uint64_t file_bytes) {
  const std::string text = text_of(read_file_bytes(path, 0, std::min<uint64_t>(kHeaderBytes, file_bytes)));
  Header header;
  const int fields = std::sscanf(text.c_str(),
                                 "quantnoise-checkpoint %u\nblock %" SCNu64 " file %" SCNu64 " structure %" SCNx64
                                 " checksum %" SCNx64,
                                 &header.version, &header.block, &header.file, &header.structure, &header.checksum);
  if (fields != 5 || header.text() != text) not_a_checkpoint(path);
  if (header.file != file_bytes) {
    damaged(path, fmt::format("it has {} bytes instead of {}", file_bytes, header.file));
  }
  if (header.block < kHeaderBytes || header.block > file_bytes) damaged(path, "its first block is altered");
  return header;
}

/// The table behind the header of a verified block.
std::vector<SealedSection> parse_sections(const std::string& block) {
  std::istringstream lines(block.substr(kHeaderBytes, block.find('\0') - kHeaderBytes));
  std::vector<SealedSection> sections;
  SealedSection section;
  while (lines >> std::hex >> section.checksum >> std::dec >> section.offset >> section.bytes) {
    lines.ignore(1);
    std::getline(lines, section.name);
    sections.push_back(section);
  }
  return sections;
}

}  // namespace

size_t seal_block_bytes(std::span<const std::string> names) {
  size_t bytes = kHeaderBytes + 1;
  for (const std::string& name : names) bytes += kNumbersPerLine + name.size();
  return std::bit_ceil(std::max<size_t>(bytes, 512));
}

void write_seal(const std::filesystem::path& path, std::span<const SealedSection> sections) {
  std::vector<SealedSection> in_order(sections.begin(), sections.end());
  std::sort(in_order.begin(), in_order.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::vector<std::string> names;
  std::string table;
  for (const SealedSection& s : in_order) {
    QN_ASSERT(s.name.find('\n') == std::string::npos, "line feed in the name '{}'", s.name);
    names.push_back(s.name);
    table += fmt::format("{:016x} {} {} {}\n", s.checksum, s.offset, s.bytes, s.name);
  }
  Header header{.block = seal_block_bytes(names), .file = std::filesystem::file_size(path)};
  header.structure = structure_checksum(path, header, in_order);
  std::string block = header.text() + table;
  block.resize(header.block, '\0');
  block.replace(kHeaderBytes - 1 - kChecksumDigits, kChecksumDigits, checksummed(block));
  overwrite_file_bytes(path, 0, std::as_bytes(std::span(block)));
}

namespace {

/// The verified first block of a file, and the header in it.
struct Block {
  Header header;
  std::string text;
};

Block read_block(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (std::filesystem::is_directory(path)) not_a_checkpoint(path);
  const std::string obstacle = obstacle_at(path);
  QN_CHECK(obstacle.empty(), "cannot open checkpoint {}: it is {}", path.string(), obstacle);
  QN_CHECK(!error, "cannot open checkpoint {}: {}", path.string(), error.message());
  const Header header = read_header(path, file_bytes);
  Block block{header, text_of(read_file_bytes(path, 0, header.block))};
  if (checksummed(block.text) != hex64(header.checksum)) damaged(path, "its first block is altered");
  QN_CHECK(header.version <= kSealVersion,
           "checkpoint {} has format version {}, this program reads versions up to {}: use a newer quantnoise",
           path.string(), header.version, kSealVersion);
  return block;
}

std::vector<std::byte> read_section(const std::filesystem::path& path, const SealedSection& section) {
  std::vector<std::byte> content = read_file_bytes(path, section.offset, section.bytes);
  if (hash_bytes(content.data(), content.size()) != section.checksum)
    damaged(path, fmt::format("dataset '{}' is altered", section.name));
  return content;
}

}  // namespace

void verify_seal(const std::filesystem::path& path) {
  const Block block = read_block(path);
  const std::vector<SealedSection> sections = parse_sections(block.text);
  for (const SealedSection& section : sections) read_section(path, section);
  if (structure_checksum(path, block.header, sections) != block.header.structure)
    damaged(path, "its structure is altered");
}

std::string read_sealed(const std::filesystem::path& path, const std::string& name) {
  return whole_read(path, [&]() -> std::string {
    for (const SealedSection& section : parse_sections(read_block(path).text))
      if (section.name == name) return text_of(read_section(path, section));
    return {};
  });
}

std::string seal_checksum(const std::filesystem::path& path) {
  return whole_read(path, [&] { return hex64(read_block(path).header.checksum); });
}

}  // namespace qn
