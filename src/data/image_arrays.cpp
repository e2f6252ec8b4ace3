// MNIST's and CIFAR's files: arrays of pixels of one size.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string_view>

#include "core/error.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "core/zlib_stream.h"
#include "data/image_file.h"
#include "data/image_sources.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostUnpacked = size_t{1} << 32;

void check_folder(const fs::path& folder, const char* what) {
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: there is no such folder; name the one that holds {}", folder.string(),
                 what);
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// ---- idx -----------------------------------------------------------------------------------------------------------

/// An array of bytes in Yann LeCun's idx format: 0, 0, type 8 (bytes), number of axes, their sizes (u32, big-endian),
/// the values.
struct IdxArray {
  fs::path path;
  std::string content;
  std::vector<int64_t> sizes;
  const char* values() const { return content.data() + 4 + 4 * sizes.size(); }
};

IdxArray read_idx(const fs::path& path, size_t axes) {
  IdxArray array{path, text_of(read_file_bytes(path)), {}};
  if (kind_of(array.content) == FileKind::gzip)
    array.content = decompress_gzip(std::as_bytes(std::span(array.content)), kMostUnpacked, path.string());
  const std::string& c = array.content;
  const size_t head = 4 + 4 * axes;
  QN_CHECK(c.size() >= head && c[0] == 0 && c[1] == 0 && c[2] == 8 && c[3] == static_cast<char>(axes),
           "{} is no idx file of bytes with {} axes (train-images-idx3-ubyte and the like)", path.string(), axes);
  double expected = 1;
  for (size_t a = 0; a < axes; ++a) {
    uint32_t size = 0;
    for (size_t b = 0; b < 4; ++b) size = size << 8 | static_cast<uint8_t>(c[4 + 4 * a + b]);
    array.sizes.push_back(size);
    expected *= size;
  }
  QN_CHECK(static_cast<double>(c.size() - head) == expected && expected > 0,
           "{} should hold [{}] bytes but has {}: it is cut off or damaged; copy it again", path.string(),
           fmt::join(array.sizes, " x "), c.size() - head);
  return array;
}

/// One of the names that such a file goes by.
fs::path idx_file(const fs::path& folder, const std::string& split, const std::string& kind) {
  std::vector<std::string> names;
  for (const char* dot : {"-", "."})
    for (const char* packed : {"", ".gz"}) names.push_back(fmt::format("{}-{}{}-ubyte{}", split, kind, dot, packed));
  for (std::string& name : names) {
    const size_t at = name.rfind("-ubyte");
    name.insert(at, kind == "images" ? "idx3" : "idx1");
    if (fs::exists(folder / name)) return folder / name;
  }
  fail_usage("{} has no {} (nor {}): --mnist needs the four files of MNIST", folder.string(), names[0],
             fmt::join(names.begin() + 1, names.end(), ", "));
}

ImageSource mnist_split(const fs::path& folder, const std::string& split, const std::string& prefix) {
  const fs::path images = idx_file(folder, prefix, "images"), labels = idx_file(folder, prefix, "labels");
  auto pixels = std::make_shared<const IdxArray>(read_idx(images, 3));
  const IdxArray classes = read_idx(labels, 1);
  const int64_t count = pixels->sizes[0], height = pixels->sizes[1], width = pixels->sizes[2];
  QN_CHECK(height <= kMostPixels / width, "{}: pictures of {} x {} pixels are too large", images.string(), width,
           height);
  QN_CHECK(classes.sizes[0] == count, "{} has {} images, {} has {} labels: they do not belong together",
           images.string(), group_digits(count), labels.string(), group_digits(classes.sizes[0]));
  ImageSource source{split, images.string(), {}, {}, false, {images, labels}};
  for (int64_t i = 0; i < count; ++i) source.labels.push_back(static_cast<uint8_t>(classes.values()[i]));
  source.read = [pixels, height, width](int64_t i) {
    const auto* from = reinterpret_cast<const std::byte*>(pixels->values()) + i * height * width;
    return StoredImage{height, width, {from, from + height * width}};
  };
  return source;
}

// ---- CIFAR ---------------------------------------------------------------------------------------------------------

constexpr int64_t kSide = 32, kPlane = kSide * kSide;

struct CifarForm {
  std::vector<std::string> train, test;
  std::string names;
  size_t label_bytes, label;  ///< in front of the pixels; which of them is the label
  size_t classes;
};

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> lines;
  const std::string text = read_text_file(path);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(line);
    at = end + 1;
  }
  return lines;
}

ImageSource cifar_split(const fs::path& folder, const std::string& split, const std::vector<std::string>& names,
                        const CifarForm& form) {
  const size_t record = form.label_bytes + 3 * kPlane;
  ImageSource source{split, (folder / names.front()).string(), {}, {}};
  if (names.size() > 1) source.origin += fmt::format(" and {} more", names.size() - 1);
  auto records = std::make_shared<std::vector<std::byte>>();
  for (const std::string& name : names) {
    const std::vector<std::byte> bytes = read_file_bytes(folder / name);
    QN_CHECK(!bytes.empty() && bytes.size() % record == 0,
             "{} has {} bytes, which is no whole number of images of {}: it is cut off or another file",
             (folder / name).string(), bytes.size(), record);
    for (size_t at = 0; at < bytes.size(); at += record) {
      const auto label = static_cast<int32_t>(bytes[at + form.label]);
      QN_CHECK(label < static_cast<int32_t>(form.classes), "{}: image {} has label {}, but there are {} classes",
               (folder / name).string(), at / record, label, form.classes);
      source.labels.push_back(label);
    }
    records->insert(records->end(), bytes.begin(), bytes.end());
    source.files.push_back(folder / name);
  }
  source.read = [records, record, skip = form.label_bytes](int64_t i) {
    StoredImage image{kSide, kSide, std::vector<std::byte>(3 * kPlane)};
    const std::byte* planes = records->data() + static_cast<size_t>(i) * record + skip;
    for (size_t p = 0; p < kPlane; ++p)
      for (size_t c = 0; c < 3; ++c) image.bytes[3 * p + c] = planes[c * kPlane + p];
    return image;
  };
  return source;
}

}  // namespace

ImageSources open_mnist(const fs::path& folder) {
  check_folder(folder, "MNIST's four files");
  ImageSources sources{{ImageStorage::pixels, 1, {}}, {}};
  sources.splits.push_back(mnist_split(folder, "train", "train"));
  sources.splits.push_back(mnist_split(folder, "test", "t10k"));
  int32_t most = 0;
  for (const ImageSource& source : sources.splits)
    most = std::max(most, *std::max_element(source.labels.begin(), source.labels.end()));
  for (int32_t c = 0; c <= most; ++c) sources.kind.classes.push_back(std::to_string(c));
  return sources;
}

ImageSources open_cifar(const fs::path& folder) {
  check_folder(folder, "the binary version of CIFAR-10 or CIFAR-100 (*.bin)");
  const CifarForm ten{
      {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
      {"test_batch.bin"},
      "batches.meta.txt",
      1,
      0,
      10};
  const CifarForm hundred{{"train.bin"}, {"test.bin"}, "fine_label_names.txt", 2, 1, 100};
  const CifarForm& form = fs::exists(folder / ten.test.front()) ? ten : hundred;
  std::vector<std::string> files = form.train;
  files.insert(files.end(), {form.test.front(), form.names});
  for (const std::string& name : files)
    QN_CHECK_USAGE(fs::exists(folder / name),
                   "{} has no {}: --cifar needs the files of CIFAR-10's binary version (data_batch_1.bin ... "
                   "data_batch_5.bin, test_batch.bin, batches.meta.txt) or CIFAR-100's (train.bin, test.bin, "
                   "fine_label_names.txt)",
                   folder.string(), name);
  ImageSources sources{{ImageStorage::pixels, 3, lines_of(folder / form.names)}, {}};
  sources.splits.push_back(cifar_split(folder, "train", form.train, form));
  sources.splits.push_back(cifar_split(folder, "test", form.test, form));
  QN_CHECK(sources.kind.classes.size() == form.classes, "{} names {} classes instead of {}",
           (folder / form.names).string(), sources.kind.classes.size(), form.classes);
  return sources;
}

}  // namespace qn
