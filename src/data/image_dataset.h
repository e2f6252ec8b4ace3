// A prepared split of images: one memory-mapped file SPLIT.images (docs/formats.md, section 3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/file_io.h"
#include "data/image.h"

namespace qn {

/// What the bytes of an image are.
enum class ImageStorage : uint32_t {
  pixels = 0,  ///< levels, HWC
  files = 1    ///< JPEG or PNG files, decoded whenever they are read
};

/// What a split's images share.
struct ImageSplitKind {
  ImageStorage storage = ImageStorage::pixels;
  int64_t channels = 3;                   ///< 1 or 3
  std::vector<std::string> classes = {};  ///< their names; none: no labels
};

/// Images on their way into a split. Used by write_image_split().
class ImageSplitWriter {
 public:
  virtual ~ImageSplitWriter() = default;
  /// `label` is a class, -1 for none.
  virtual void add(std::span<const std::byte> bytes, int64_t height, int64_t width, int32_t label) = 0;
};

/// Writes FOLDER/NAME.images atomically. Throws qn::Error when it cannot be written, and whatever `fill` throws.
void write_image_split(const std::filesystem::path& folder, const std::string& name, const ImageSplitKind& kind,
                       const std::function<void(ImageSplitWriter&)>& fill);

/// The file of a split.
std::filesystem::path image_split_file(const std::filesystem::path& folder, const std::string& name);
/// Names of the image splits in a folder, sorted.
std::vector<std::string> image_splits_in(const std::filesystem::path& folder);

class ImageDataset {
 public:
  /// Maps the file and checks everything but the images themselves, which are checked whenever they are read: opening
  /// takes no longer for many. Throws qn::Error naming the file and what to do: no prepared images, damaged, cut off.
  explicit ImageDataset(const std::filesystem::path& file);
  /// Of a prepared folder. Throws UsageError, naming the splits that it has, where there is none of this name.
  static ImageDataset open(const std::filesystem::path& folder, const std::string& split);

  int64_t size() const { return size_; }
  int64_t channels() const { return kind_.channels; }
  ImageStorage storage() const { return kind_.storage; }
  const std::vector<std::string>& classes() const { return kind_.classes; }
  const std::string& path() const { return path_; }

  // Of an item in [0, size()):
  int32_t label(int64_t item) const { return entry(item).label; }  ///< -1: none
  int64_t height(int64_t item) const { return entry(item).height; }
  int64_t width(int64_t item) const { return entry(item).width; }
  /// Its levels; decoded into `scratch` where the split has files. Live as long as both. Thread-safe. Throws qn::Error
  /// when its bytes are not those that were prepared.
  ImageView pixels(int64_t item, Image& scratch) const;

  /// Of everything in the file (the index has a checksum of every image): a run that goes on must find the same.
  uint64_t checksum() const { return checksum_; }
  /// How many items every class has, [classes]; and how many have no label.
  std::vector<int64_t> class_sizes() const;
  int64_t unlabelled() const;

 private:
  /// As in the file.
  struct Entry {
    uint64_t offset = 0;
    uint64_t hash = 0;  ///< XXH3 of the bytes
    uint32_t bytes = 0, height = 0, width = 0;
    int32_t label = -1;
  };
  Entry entry(int64_t item) const;
  void read_classes(std::string_view names, uint64_t count);
  void check_entries() const;
  [[noreturn]] void damaged(const std::string& what) const;

  std::string path_;
  MappedFile file_;
  ImageSplitKind kind_;
  int64_t size_ = 0;
  uint64_t index_ = 0;  ///< where it begins
  uint64_t checksum_ = 0;
  friend class ImageFileWriter;
};

}  // namespace qn
