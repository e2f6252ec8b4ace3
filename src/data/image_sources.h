// Where images come from that `quantnoise prepare` makes splits of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/image_dataset.h"
#include "data/image_resize.h"

namespace qn {

/// An image as a split stores it.
struct StoredImage {
  int64_t height = 0, width = 0;
  std::vector<std::byte> bytes;
};

/// The images of one split.
struct ImageSource {
  std::string split;            ///< train, valid, ...
  std::string origin;           ///< for messages
  std::vector<int32_t> labels;  ///< one per image, -1: none
  /// Reads image `i` of labels.size(); thread-safe. Throws qn::Error naming the file that is damaged.
  std::function<StoredImage(int64_t i)> read;
  bool decodes = false;                           ///< reading takes so long that threads are worth while
  std::vector<std::filesystem::path> files = {};  ///< that it is made of, as far as an output could overwrite them
};

struct ImageSources {
  ImageSplitKind kind;
  std::vector<ImageSource> splits;
};

/// Splits train and test of the four idx files of MNIST or of data sets of the same form, packed by gzip or not; 1
/// channel, classes 0 to the highest label. Throws qn::Error naming what is missing or damaged.
ImageSources open_mnist(const std::filesystem::path& folder);

/// Splits train and test of the binary version of CIFAR-10 (data_batch_1.bin ... test_batch.bin, batches.meta.txt) or
/// CIFAR-100 (train.bin, test.bin, fine_label_names.txt; its fine labels). Throws as above.
ImageSources open_cifar(const std::filesystem::path& folder);

/// Pictures in files.
struct ImageFilesOptions {
  /// Names of splits, and where their pictures are: a folder with a folder per class (with JPEG and PNG files at any
  /// depth) or with pictures of no class right in it; or a list, CSV with a header.
  std::vector<std::pair<std::string, std::filesystem::path>> inputs;
  std::filesystem::path root = {};  ///< what names in lists are relative to; empty: the list's folder
  std::string columns = {};         ///< "file=NAME,label=NAME,name=NAME" of lists; found by usual names otherwise
  /// A text with the names of all classes, a line each, in the order of their numbers; or how many there are; or
  /// empty: what is found.
  std::filesystem::path classes = {};
  int64_t channels = 3;
  int64_t resize = 0;  ///< store pixels, the shorter side no longer than this; 0: store the files as they are
  ResizeFilter filter = ResizeFilter::bicubic;
};

/// Classes are those of the first input, sorted by name (bytes), or `classes`; where a list's labels are whole numbers,
/// they are numbers of classes, which a column `name` may name. Pictures are in the order of their classes and names,
/// or of the list. Throws qn::Error naming file, line and what to do.
ImageSources open_image_files(const ImageFilesOptions& options);

}  // namespace qn
