#include "core/safetensors.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file_kind.h"
#include "core/strict_json.h"
#include "core/text.h"

namespace qn {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr const char* kMetadata = "__metadata__";
constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr uint64_t kLengthField = 8;
// A tensor's is shorter: there may be hundreds, and the header of a small model at a few bits has to stay small.
constexpr size_t kHeaderDigits = 16, kTensorDigits = 8;

struct TypeRow {
  StoredType type;
  const char* name;
  size_t size;
};
constexpr std::array<TypeRow, 13> kTypes{{{StoredType::f64, "F64", 8},
                                          {StoredType::f32, "F32", 4},
                                          {StoredType::f16, "F16", 2},
                                          {StoredType::bf16, "BF16", 2},
                                          {StoredType::i64, "I64", 8},
                                          {StoredType::i32, "I32", 4},
                                          {StoredType::i16, "I16", 2},
                                          {StoredType::i8, "I8", 1},
                                          {StoredType::u64, "U64", 8},
                                          {StoredType::u32, "U32", 4},
                                          {StoredType::u16, "U16", 2},
                                          {StoredType::u8, "U8", 1},
                                          {StoredType::boolean, "BOOL", 1}}};

const TypeRow& row_of(StoredType type) { return kTypes[static_cast<size_t>(type)]; }

/// shape's elements times `element_size`; nothing when that overflows.
std::optional<uint64_t> byte_count(const std::vector<int64_t>& shape, size_t element_size) {
  uint64_t bytes = element_size;
  for (const int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) return std::nullopt;
  return bytes;
}

json parse_header(const std::string& path, std::string_view text) {
  std::string repeated;
  json header;
  try {
    header = parse_unique_json<json>(text, repeated);
  } catch (const json::exception& error) {
    fail("'{}' is no safetensors file, or damaged: its header is not valid JSON ({})", path, json_problem(error));
  }
  QN_CHECK(repeated.empty(), "'{}': '{}' appears twice in the header: the file is damaged", path, repeated);
  QN_CHECK(header.is_object(), "'{}' is no safetensors file: its header is not a JSON object", path);
  return header;
}

int64_t read_size(const json& value, const std::string& where) {
  QN_CHECK(value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()},
           "{}: {} is not a size", where, value.dump());
  return value.get<int64_t>();
}

/// One header entry; `data` is everything after the header.
StoredTensor read_entry(const std::string& where, const std::string& name, const json& entry,
                        std::span<const std::byte> data) {
  QN_CHECK(entry.is_object() && entry.size() == 3 && entry.contains("dtype") && entry.contains("shape") &&
               entry.contains("data_offsets"),
           "{}: the header entry must have exactly dtype, shape and data_offsets", where);
  const json& dtype = entry["dtype"];
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& t) { return dtype == t.name; });
  QN_CHECK(type != kTypes.end(), "{}: unknown dtype {}", where, dtype.dump());
  QN_CHECK(entry["shape"].is_array(), "{}: shape is not a list", where);
  StoredTensor tensor{name, type->type, {}, {}};
  for (const json& extent : entry["shape"]) tensor.shape.push_back(read_size(extent, where + ": shape"));
  const json& offsets = entry["data_offsets"];
  QN_CHECK(offsets.is_array() && offsets.size() == 2, "{}: data_offsets must be [begin, end]", where);
  const auto begin = static_cast<uint64_t>(read_size(offsets[0], where + ": data_offsets"));
  const auto end = static_cast<uint64_t>(read_size(offsets[1], where + ": data_offsets"));
  QN_CHECK(begin <= end, "{}: data_offsets [{}, {}] end before they begin: the file is damaged", where, begin, end);
  QN_CHECK(
      end <= data.size(),
      "{}: the values end at byte {}, but the file has {} only (data_offsets lie outside): it is cut, as copies and "
      "downloads are that were interrupted; get it again",
      where, end, data.size());
  const std::optional<uint64_t> bytes = byte_count(tensor.shape, type->size);
  QN_CHECK(bytes && *bytes == end - begin, "{}: shape {} of {} does not fill the {} bytes that data_offsets give",
           where, entry["shape"].dump(), type->name, end - begin);
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

/// Sorts by position and makes sure that the tensors fill the data without overlap or hole.
void check_layout(const std::string& path, std::vector<StoredTensor>& tensors, std::span<const std::byte> data) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.bytes.data(), a.bytes.size()) < std::pair(b.bytes.data(), b.bytes.size());
  });
  const std::byte* expected = data.data();
  for (const StoredTensor& tensor : tensors) {
    QN_CHECK(tensor.bytes.data() == expected, "'{}': tensor '{}' {} the one before it", path, tensor.name,
             tensor.bytes.data() < expected ? "overlaps" : "leaves a hole after");
    expected += tensor.bytes.size();
  }
  QN_CHECK(expected == data.data() + data.size(), "'{}': {} bytes after the last tensor belong to nothing", path,
           data.data() + data.size() - expected);
}

/// Where the value of kChecksums begins in the text of a header: quotes within texts are escaped, so nothing else looks
/// like this key.
size_t place_of_checksums(std::string_view header) {
  const std::string key = fmt::format("\"{}\":\"", kChecksums);
  const size_t place = header.find(key);
  return place == std::string_view::npos ? place : place + key.size();
}

/// `place` is that of the header's own checksum, which is taken as zeros.
uint64_t header_checksum(std::string header, size_t place) {
  header.replace(place, kHeaderDigits, kHeaderDigits, '0');
  return hash_bytes(header.data(), header.size());
}

std::string tensor_checksum(std::span<const std::byte> bytes) {
  return hex64(hash_bytes(bytes.data(), bytes.size())).substr(hex64(0).size() - kTensorDigits);
}

}  // namespace

size_t size_of(StoredType type) { return row_of(type).size; }
const char* name_of(StoredType type) { return row_of(type).name; }

int64_t StoredTensor::elements() const { return std::ssize(bytes) / static_cast<int64_t>(size_of(type)); }

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : path_(path.string()), file_(path) {
  read_header();
}

void SafetensorsReader::read_header() {
  const std::span<const std::byte> all = file_.bytes();
  QN_CHECK(all.size() >= kLengthField, "'{}' is no safetensors file: {} bytes are too short", path_, all.size());
  uint64_t length = 0;
  std::memcpy(&length, all.data(), sizeof length);
  // What is in the place of the length of another kind of file is none.
  const FileKind kind = kind_of_file(path_, {reinterpret_cast<const char*>(all.data()), all.size()});
  QN_CHECK(kind == FileKind::safetensors || (kind == FileKind::binary && length <= kMaxHeader),
           "'{}' is no safetensors file{}: it is {}{}", path_, kind == FileKind::binary ? " or is cut off" : "",
           description(kind), way_to_safetensors(kind));
  QN_CHECK(length <= kMaxHeader && length <= all.size() - kLengthField,
           "'{}' is no safetensors file or is cut off: it announces a header of {} bytes in a file of {}", path_,
           length, all.size());
  data_begin_ = kLengthField + length;
  const std::span<const std::byte> data = all.subspan(data_begin_);
  const std::string_view text(reinterpret_cast<const char*>(all.data()) + kLengthField, length);
  const json header = parse_header(path_, text);
  if (header.contains(kMetadata) && header[kMetadata].contains(kChecksums)) read_checksums(text);
  for (const auto& [name, entry] : header.items()) {
    if (name != kMetadata) {
      tensors_.push_back(read_entry(fmt::format("'{}', tensor '{}'", path_, name), name, entry, data));
      continue;
    }
    QN_CHECK(entry.is_object(), "'{}': {} must map texts to texts", path_, kMetadata);
    for (const auto& [key, value] : entry.items()) {
      QN_CHECK(value.is_string(), "'{}': metadata '{}' is not a text", path_, key);
      metadata_[key] = value.get<std::string>();
    }
  }
  check_layout(path_, tensors_, data);
  QN_CHECK(!has_checksums_ || checksums_.size() == tensors_.size() * kTensorDigits,
           "'{}' has {} digits of checksums for {} tensors", path_, checksums_.size(), tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
}

void SafetensorsReader::read_checksums(std::string_view header) {
  const size_t place = place_of_checksums(header);
  const std::string_view text =
      place == std::string_view::npos ? "" : header.substr(place, header.find('"', place) - place);
  QN_CHECK(text.size() >= kHeaderDigits &&
               text.substr(0, kHeaderDigits) == hex64(header_checksum(std::string(header), place)),
           "'{}': the header (metadata, names and shapes) does not fit its checksum: the file is damaged, or another "
           "program rewrote it",
           path_);
  checksums_ = text.substr(kHeaderDigits);
  has_checksums_ = true;
}

void SafetensorsReader::rename(const std::function<std::optional<std::string>(const std::string&)>& new_name) {
  std::vector<StoredTensor> tensors;
  std::string checksums;
  index_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const std::optional<std::string> name = new_name(tensors_[i].name);
    if (!name) continue;
    const bool fresh = index_.try_emplace(*name, tensors.size()).second;
    QN_ASSERT(fresh, "two tensors would be called {}", *name);
    tensors.push_back(std::move(tensors_[i]));
    tensors.back().name = *name;
    if (has_checksums_) checksums += checksums_.substr(i * kTensorDigits, kTensorDigits);
  }
  tensors_ = std::move(tensors);
  checksums_ = std::move(checksums);
}

void SafetensorsReader::release(const StoredTensor& tensor) const {
  // Whole pages only: those at the ends may be a neighbour's, too.
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(tensor.bytes.data());
  const uintptr_t first = (begin + page - 1) / page * page, last = (begin + tensor.bytes.size()) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // else they just stay
}

void SafetensorsReader::verify() const {
  std::vector<std::string> altered;
  for (size_t i = 0; has_checksums_ && i < tensors_.size(); ++i) {
    if (tensor_checksum(tensors_[i].bytes) != checksums_.substr(i * kTensorDigits, kTensorDigits))
      altered.push_back(fmt::format("'{}'", tensors_[i].name));
    release(tensors_[i]);
  }
  QN_CHECK(altered.empty(), "'{}' is damaged: tensor {} does not fit {} checksum", path_, fmt::join(altered, ", "),
           altered.size() == 1 ? "its" : "their");
}

const StoredTensor& SafetensorsReader::at(const std::string& name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, position] : index_) names.push_back(known);
    fail("'{}' has no tensor '{}'; the nearest names are: {}", path_, name, fmt::join(nearest(name, names, 3), ", "));
  }
  return tensors_[it->second];
}

const std::string& SafetensorsReader::metadata_at(const std::string& key) const {
  const auto it = metadata_.find(key);
  QN_CHECK(it != metadata_.end(), "'{}' has no metadata '{}': it was not written by quantnoise", path_, key);
  return it->second;
}

template <typename T>
std::vector<T> SafetensorsReader::values(const std::string& name, StoredType type) const {
  const StoredTensor& tensor = at(name);
  QN_CHECK(tensor.type == type, "'{}': tensor '{}' holds {}, {} expected", path_, name, name_of(tensor.type),
           name_of(type));
  QN_ASSERT(sizeof(T) == size_of(type));
  std::vector<T> values(static_cast<size_t>(tensor.elements()));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

template std::vector<double> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<float> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<int64_t> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<int32_t> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<uint16_t> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<uint8_t> SafetensorsReader::values(const std::string&, StoredType) const;
template std::vector<int8_t> SafetensorsReader::values(const std::string&, StoredType) const;

void SafetensorsWriter::add(const std::string& name, StoredType type, std::vector<int64_t> shape,
                            std::span<const std::byte> bytes) {
  const std::optional<uint64_t> expected = byte_count(shape, size_of(type));
  QN_ASSERT(expected == bytes.size(), "tensor '{}': {} bytes for a shape of {}", name, bytes.size(),
            expected.value_or(0));
  add_entry(name, {type, std::move(shape), bytes.size(), {bytes.begin(), bytes.end()}});
}

void SafetensorsWriter::add_planned(const std::string& name, StoredType type, std::vector<int64_t> shape) {
  const std::optional<uint64_t> size = byte_count(shape, size_of(type));
  QN_ASSERT(size.has_value(), "tensor '{}' is too large", name);
  add_entry(name, {type, std::move(shape), *size, {}});
}

void SafetensorsWriter::add_entry(const std::string& name, Entry entry) {
  QN_CHECK(name != kMetadata && !name.empty(), "'{}' cannot be the name of a tensor in a safetensors file", name);
  const bool fresh = entries_.try_emplace(name, std::move(entry)).second;
  QN_CHECK(fresh, "tensor '{}' is stored twice", name);
}

std::vector<const SafetensorsWriter::Named*> SafetensorsWriter::in_file_order() const {
  std::vector<const Named*> order;
  for (const Named& entry : entries_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(),
                   [](const Named* a, const Named* b) { return size_of(a->second.type) > size_of(b->second.type); });
  return order;
}

std::string SafetensorsWriter::header(const std::string& checksums) const {
  ordered_json header = ordered_json::object();
  if (!metadata_.empty()) header[kMetadata] = metadata_;
  if (checksummed_) header[kMetadata][kChecksums] = checksums;
  uint64_t offset = 0;
  for (const Named* named : in_file_order()) {
    const auto& [name, entry] = *named;
    const uint64_t end = offset + entry.size;
    header[name] = {{"dtype", name_of(entry.type)}, {"shape", entry.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& error) {
    fail("names and metadata of a safetensors file must be UTF-8 ({})", error.what());
  }
  QN_CHECK(text.size() + kLengthField <= kMaxHeader, "a safetensors header of {} bytes is beyond what readers accept",
           text.size());
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

std::string SafetensorsWriter::planned_header() const {
  return header(std::string(kHeaderDigits + entries_.size() * kTensorDigits, '0'));
}

std::string SafetensorsWriter::final_header() const {
  if (!checksummed_) return planned_header();
  std::string checksums(kHeaderDigits, '0');
  for (const Named* named : in_file_order()) checksums += tensor_checksum(named->second.bytes);
  std::string text = header(checksums);
  const size_t place = place_of_checksums(text);
  return text.replace(place, kHeaderDigits, hex64(header_checksum(text, place)));
}

uint64_t SafetensorsWriter::header_bytes() const { return kLengthField + planned_header().size(); }

uint64_t SafetensorsWriter::file_size() const {
  uint64_t total = header_bytes();
  for (const auto& [name, entry] : entries_) total += entry.size;
  return total;
}

void SafetensorsWriter::write(const std::filesystem::path& path) const {
  for (const auto& [name, entry] : entries_)
    QN_ASSERT(entry.bytes.size() == entry.size, "tensor '{}' is only planned", name);
  const std::string text = final_header();
  const uint64_t length = text.size();
  atomic_write(path, [&](const std::filesystem::path& temporary) {
    const FileDescriptor out(temporary, O_WRONLY, "write");
    size_t end = 0;
    const auto append = [&](std::span<const std::byte> bytes) {
      out.write(end, bytes);
      end += bytes.size();
    };
    append(std::as_bytes(std::span(&length, 1)));
    append(std::as_bytes(std::span(text)));
    for (const Named* named : in_file_order()) append(named->second.bytes);
  });
}

}  // namespace qn
