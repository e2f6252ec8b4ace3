#include "data/image_dataset.h"

#include <fcntl.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "data/image_file.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEnding = ".images";
constexpr uint32_t kVersion = 1;
constexpr size_t kBuffered = size_t{4} << 20;

struct Header {
  char magic[8];
  uint32_t version, storage, channels, classes;
  uint64_t images, index, names;  ///< how many; where the index begins; bytes of the names of classes
  uint64_t checksum;              ///< XXH3 of this header with 0 here, the index and the names
};
static_assert(sizeof(Header) == 56);

uint64_t checksum_of(Header header, std::span<const std::byte> tail) {
  header.checksum = 0;
  const uint64_t parts[] = {hash_bytes(&header, sizeof header), hash_bytes(tail.data(), tail.size())};
  return hash_bytes(parts, sizeof parts);
}

}  // namespace

/// Images first, then the index, then the names; the header last, when all of it is known.
class ImageFileWriter : public ImageSplitWriter {
 public:
  explicit ImageFileWriter(const fs::path& path) : file_(path, O_WRONLY, "cannot open") {}

  void add(std::span<const std::byte> bytes, int64_t height, int64_t width, int32_t label) override {
    QN_CHECK(bytes.size() <= std::numeric_limits<uint32_t>::max(), "an image of {} bytes is too large", bytes.size());
    index_.push_back({at_ + buffer_.size(), hash_bytes(bytes.data(), bytes.size()), static_cast<uint32_t>(bytes.size()),
                      static_cast<uint32_t>(height), static_cast<uint32_t>(width), label});
    put(bytes);
  }

  void finish(const ImageSplitKind& kind) {
    Header header{{}, kVersion, static_cast<uint32_t>(kind.storage), static_cast<uint32_t>(kind.channels), 0, 0, 0,
                  0,  0};
    std::memcpy(header.magic, kPreparedImagesMagic.data(), sizeof header.magic);
    std::string names;
    for (const std::string& name : kind.classes) names += name + "\n";
    header.classes = static_cast<uint32_t>(kind.classes.size());
    header.images = index_.size();
    header.index = at_ + buffer_.size();
    header.names = names.size();
    std::vector<std::byte> tail(index_.size() * sizeof(ImageDataset::Entry) + names.size());
    if (!index_.empty()) std::memcpy(tail.data(), index_.data(), index_.size() * sizeof(ImageDataset::Entry));
    if (!names.empty()) std::memcpy(tail.data() + tail.size() - names.size(), names.data(), names.size());
    header.checksum = checksum_of(header, tail);
    put(tail);
    flush();
    file_.write(0, std::as_bytes(std::span(&header, 1)));
  }

 private:
  void put(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    if (buffer_.size() >= kBuffered) flush();
  }
  void flush() {
    file_.write(at_, buffer_);
    at_ += buffer_.size();
    buffer_.clear();
  }

  FileDescriptor file_;
  uint64_t at_ = sizeof(Header);
  std::vector<std::byte> buffer_;
  std::vector<ImageDataset::Entry> index_;
};

fs::path image_split_file(const fs::path& folder, const std::string& name) { return folder / (name + kEnding); }

void write_image_split(const fs::path& folder, const std::string& name, const ImageSplitKind& kind,
                       const std::function<void(ImageSplitWriter&)>& fill) {
  atomic_write(image_split_file(folder, name), [&](const fs::path& temporary) {
    ImageFileWriter writer(temporary);
    fill(writer);
    writer.finish(kind);
  });
}

std::vector<std::string> image_splits_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == kEnding) names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

ImageDataset ImageDataset::open(const fs::path& folder, const std::string& split) {
  constexpr const char* kRemedy = "make it with 'quantnoise prepare --images', --mnist or --cifar";
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: no such data directory; {}", folder.string(), kRemedy);
  if (!fs::exists(image_split_file(folder, split))) {
    const std::vector<std::string> names = image_splits_in(folder);
    QN_CHECK_USAGE(!names.empty(), "{} holds no prepared images (*{}); {}", folder.string(), kEnding, kRemedy);
    fail_usage("{} has no split '{}' of images; it has: {}", folder.string(), split, fmt::join(names, ", "));
  }
  return ImageDataset(image_split_file(folder, split));
}

ImageDataset::ImageDataset(const fs::path& file) : path_(file.string()), file_(file) {
  const std::span<const std::byte> bytes = file_.bytes();
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 4096));
  QN_CHECK(head.starts_with(kPreparedImagesMagic),
           "{} holds no prepared images: it is {}; make it with 'quantnoise prepare --images', --mnist or --cifar",
           path_, description(kind_of(head)));
  Header header;
  if (bytes.size() < sizeof header) damaged("is cut off");
  std::memcpy(&header, bytes.data(), sizeof header);
  QN_CHECK(header.version == kVersion, "{} has format version {}, this program knows {}: prepare the images again",
           path_, header.version, kVersion);
  const uint64_t tail = bytes.size() - std::min<uint64_t>(header.index, bytes.size());
  if (header.index < sizeof header || header.index > bytes.size() || header.names > tail ||
      header.images != (tail - header.names) / sizeof(Entry) || (tail - header.names) % sizeof(Entry) != 0)
    damaged("is cut off or damaged");
  checksum_ = checksum_of(header, bytes.subspan(header.index));
  if (checksum_ != header.checksum) damaged("is damaged: its checksum does not hold");
  if (header.storage > 1 || (header.channels != 1 && header.channels != 3)) damaged("has images of no known kind");
  kind_.storage = static_cast<ImageStorage>(header.storage);
  kind_.channels = header.channels;
  size_ = static_cast<int64_t>(header.images);
  index_ = header.index;
  read_classes({reinterpret_cast<const char*>(bytes.data()) + bytes.size() - header.names, header.names},
               header.classes);
  check_entries();
}

void ImageDataset::read_classes(std::string_view names, uint64_t count) {
  while (!names.empty()) {
    const size_t end = names.find('\n');
    if (end == std::string_view::npos) damaged("has a class name without an end");
    kind_.classes.emplace_back(names.substr(0, end));
    names.remove_prefix(end + 1);
  }
  if (kind_.classes.size() != count) damaged(fmt::format("names {} of {} classes", kind_.classes.size(), count));
}

void ImageDataset::check_entries() const {
  for (int64_t item = 0; item < size_; ++item) {
    const Entry e = entry(item);
    const bool inside = e.offset >= sizeof(Header) && e.offset <= index_ && e.bytes <= index_ - e.offset;
    const bool sized = e.height > 0 && e.width > 0 && e.height <= kMostPixels / e.width;
    const bool filled = kind_.storage == ImageStorage::files ||
                        e.bytes == uint64_t{e.height} * e.width * static_cast<uint64_t>(kind_.channels);
    if (!inside || !sized || !filled || e.label < -1 || e.label >= std::ssize(kind_.classes))
      damaged(fmt::format("lists image {} wrongly", item));
  }
}

void ImageDataset::damaged(const std::string& what) const {
  fail("{} {}; prepare the images again (or copy the file again)", path_, what);
}

ImageDataset::Entry ImageDataset::entry(int64_t item) const {
  QN_ASSERT(item >= 0 && item < size_, "item {} of {}", item, size_);
  Entry e;
  std::memcpy(&e, file_.bytes().data() + index_ + static_cast<uint64_t>(item) * sizeof e, sizeof e);
  return e;
}

ImageView ImageDataset::pixels(int64_t item, Image& scratch) const {
  const Entry e = entry(item);
  const std::span<const std::byte> bytes = file_.bytes().subspan(e.offset, e.bytes);
  if (hash_bytes(bytes.data(), bytes.size()) != e.hash)
    damaged(fmt::format("is damaged: the checksum of image {} does not hold", item));
  if (kind_.storage == ImageStorage::pixels)
    return {reinterpret_cast<const uint8_t*>(bytes.data()), e.height, e.width, kind_.channels,
            e.width * kind_.channels};
  scratch = decode_image(bytes, kind_.channels, fmt::format("image {} of {}", item, path_));
  if (scratch.height != e.height || scratch.width != e.width) damaged(fmt::format("lists image {} wrongly", item));
  return scratch.view();
}

std::vector<int64_t> ImageDataset::class_sizes() const {
  std::vector<int64_t> sizes(kind_.classes.size());
  for (int64_t item = 0; item < size_; ++item)
    if (const int32_t c = label(item); c >= 0) ++sizes[static_cast<size_t>(c)];
  return sizes;
}

int64_t ImageDataset::unlabelled() const {
  int64_t count = 0;
  for (int64_t item = 0; item < size_; ++item) count += label(item) < 0;
  return count;
}

}  // namespace qn
