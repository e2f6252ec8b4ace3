// The safetensors file format: 8 bytes header length (u64, little-endian), a JSON header
//   {"__metadata__": {text: text}, NAME: {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ...}
// padded with spaces to a multiple of 8 bytes, then the raw little-endian values; offsets count from the end of the
// header. Readable by every safetensors implementation and by numpy alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file_io.h"

namespace qn {

/// Metadata with XXH3 checksums in hexadecimal: 16 digits for the header, these digits taken as zeros; then the last 8
/// for the bytes of every tensor, in file order. What packed files have (docs/formats.md).
inline constexpr const char* kChecksums = "xxh3";

enum class StoredType : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

size_t size_of(StoredType type);
const char* name_of(StoredType type);  ///< as in the file: "F32", "U8", ...

/// A tensor inside an open file; `bytes` lives as long as the reader.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t elements() const;
};

class SafetensorsReader {
 public:
  /// Maps and validates the file: every header field, every offset, the header's checksum where there is one; no data
  /// is read yet. Files from anywhere may be opened. Throws qn::Error naming the file, the tensor and what is wrong.
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  ///< in file order
  bool contains(const std::string& name) const { return index_.contains(name); }
  /// Throws qn::Error with the nearest names when there is no such tensor.
  const StoredTensor& at(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Throws qn::Error when the file has no such metadata.
  const std::string& metadata_at(const std::string& key) const;

  /// From now on tensors have other names here, or are not here at all, and metadata other texts: the file as it would
  /// be. Its sizes and path stay. `new_name` gives nothing for tensors that are left out.
  void rename(const std::function<std::optional<std::string>(const std::string&)>& new_name);
  void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

  /// A copy of the values; T must have the size of the stored elements and `type` must be what is stored.
  template <typename T>
  std::vector<T> values(const std::string& name, StoredType type) const;

  const std::string& path() const { return path_; }
  uint64_t file_size() const { return file_.size(); }
  uint64_t header_bytes() const { return data_begin_; }  ///< everything that is not tensor data

  /// Whether the file says what its bytes have to be; its header is then known to be intact.
  bool has_checksums() const { return has_checksums_; }
  /// The tensor's bytes will not be read soon: they need not stay in memory, where the system counts them as ours.
  void release(const StoredTensor& tensor) const;
  /// Reads all tensors, releasing each. Throws qn::Error naming those that their checksums do not fit; has nothing to
  /// say of a file without checksums.
  void verify() const;

 private:
  void read_header();
  void read_checksums(std::string_view header);

  std::string path_;
  MappedFile file_;
  uint64_t data_begin_ = 0;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
  std::string checksums_;  ///< of tensors_, in this order
  bool has_checksums_ = false;
};

/// Collects tensors, then writes them at once. The order in the file is by element size (largest first, so that every
/// tensor is aligned) and then by name: equal content gives equal files.
class SafetensorsWriter {
 public:
  /// Copies the values. Throws qn::Error on a repeated or reserved name, qn::InternalError on a wrong size.
  void add(const std::string& name, StoredType type, std::vector<int64_t> shape, std::span<const std::byte> bytes);
  template <typename T>
  void add(const std::string& name, StoredType type, std::vector<int64_t> shape, const std::vector<T>& values) {
    add(name, type, std::move(shape), std::as_bytes(std::span<const T>(values)));
  }
  /// A tensor of which only the header is of interest: header_bytes() and file_size() count it, write() refuses it.
  void add_planned(const std::string& name, StoredType type, std::vector<int64_t> shape);
  void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }
  /// Adds the metadata kChecksums.
  void set_checksummed() { checksummed_ = true; }

  uint64_t header_bytes() const;  ///< length field, header and padding
  uint64_t file_size() const;     ///< what write() will produce
  /// Replaces `path` atomically. Throws qn::Error when it cannot be written.
  void write(const std::filesystem::path& path) const;

 private:
  struct Entry {
    StoredType type;
    std::vector<int64_t> shape;
    uint64_t size;
    std::vector<std::byte> bytes;  ///< `size` of them; none when planned
  };
  void add_entry(const std::string& name, Entry entry);
  using Named = std::map<std::string, Entry>::value_type;
  std::vector<const Named*> in_file_order() const;
  /// `checksums`: the value of kChecksums.
  std::string header(const std::string& checksums) const;
  std::string planned_header() const;
  std::string final_header() const;

  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  bool checksummed_ = false;
};

}  // namespace qn
