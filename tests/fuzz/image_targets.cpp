// Pictures: files, arrays of them, prepared splits.
#include <cstdio>
// jpeglib.h needs FILE and size_t declared before it.
#include <jpeglib.h>
#include <png.h>

#include <cstdlib>
#include <filesystem>

#include "data/image_dataset.h"
#include "data/image_file.h"
#include "data/image_sources.h"
#include "targets.h"

namespace qn::fuzz {
namespace {

std::vector<uint8_t> numbered_pixels(size_t count) {
  std::vector<uint8_t> pixels(count);
  for (size_t i = 0; i < count; ++i) pixels[i] = static_cast<uint8_t>(37 * i);
  return pixels;
}

std::string jpeg(unsigned width, unsigned height, int channels, bool progressive) {
  jpeg_compress_struct encoder{};
  jpeg_error_mgr errors{};
  encoder.err = jpeg_std_error(&errors);
  jpeg_create_compress(&encoder);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&encoder, &bytes, &size);
  encoder.image_width = width;
  encoder.image_height = height;
  encoder.input_components = channels;
  encoder.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&encoder);
  if (progressive) jpeg_simple_progression(&encoder);
  jpeg_start_compress(&encoder, TRUE);
  std::vector<uint8_t> row = numbered_pixels(size_t{width} * static_cast<size_t>(channels));
  while (encoder.next_scanline < height) {
    JSAMPROW rows[] = {row.data()};
    jpeg_write_scanlines(&encoder, rows, 1);
  }
  jpeg_finish_compress(&encoder);
  jpeg_destroy_compress(&encoder);
  std::string file(reinterpret_cast<const char*>(bytes), size);
  std::free(bytes);
  return file;
}

std::string png(unsigned width, unsigned height, unsigned format) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = format;
  const std::vector<uint8_t> pixels = numbered_pixels(PNG_IMAGE_SIZE(image) + PNG_IMAGE_COLORMAP_SIZE(image));
  const uint8_t* map = pixels.data() + PNG_IMAGE_SIZE(image);
  if ((format & PNG_FORMAT_FLAG_COLORMAP) != 0) image.colormap_entries = 256;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, map);
  std::string file(size, '\0');
  png_image_write_to_memory(&image, file.data(), &size, 0, pixels.data(), 0, map);
  file.resize(size);
  return file;
}

void read_picture(Bytes input) {
  if (input.empty()) return;
  decode_image(input.subspan(1), (static_cast<int>(input[0]) & 1) != 0 ? 3 : 1, "picture");
}

std::vector<std::string> pictures() {
  return {"\3" + jpeg(17, 9, 3, false),
          "\1" + jpeg(16, 16, 1, true),
          "\3" + jpeg(8, 8, 4, false),
          "\3" + png(5, 7, PNG_FORMAT_RGB),
          "\3" + png(5, 7, PNG_FORMAT_RGBA),
          "\2" + png(9, 3, PNG_FORMAT_GRAY),
          "\3" + png(4, 4, PNG_FORMAT_RGB_COLORMAP)};
}

std::string idx(const std::vector<uint32_t>& sizes, const std::vector<uint8_t>& values) {
  std::string content{'\0', '\0', '\x08', static_cast<char>(sizes.size())};
  for (const uint32_t size : sizes)
    for (const int shift : {24, 16, 8, 0}) content += static_cast<char>(size >> shift);
  return content.append(values.begin(), values.end());
}

void read_all(const ImageSources& sources) {
  for (const ImageSource& split : sources.splits)
    for (size_t i = 0; i < split.labels.size() && i < 100; ++i) split.read(static_cast<int64_t>(i));
}

/// MNIST's four files, of which the two of the test split stand for all.
void read_mnist(Bytes input) {
  const std::vector<std::string> parts = parts_of(input, 2);
  std::string file;
  for (const char* prefix : {"train", "t10k"}) {
    file = file_with(parts[0], std::string("mnist/") + prefix + "-images-idx3-ubyte");
    file_with(parts[1], std::string("mnist/") + prefix + "-labels-idx1-ubyte");
  }
  read_all(open_mnist(std::filesystem::path(file).parent_path()));
}

std::vector<std::string> mnist() {
  return {joined({idx({2, 4, 3}, numbered_pixels(24)), idx({2}, {0, 1})}),
          joined({idx({1, 1, 1}, {7}), idx({1}, {255})})};
}

/// CIFAR-100's names, train.bin and test.bin.
void read_cifar(Bytes input) {
  const std::vector<std::string> parts = parts_of(input, 3);
  file_with(parts[0], "cifar/fine_label_names.txt");
  file_with(parts[1], "cifar/train.bin");
  read_all(open_cifar(std::filesystem::path(file_with(parts[2], "cifar/test.bin")).parent_path()));
}

std::vector<std::string> cifar() {
  std::string names, image(2 + 3072, '\1');
  for (int c = 0; c < 100; ++c) names += "class" + std::to_string(c) + "\n";
  return {joined({names, image + image, image})};
}

void read_split(Bytes input) {
  const ImageDataset split(file_with(text_of(input), "valid.images"));
  split.class_sizes();
  Image scratch;
  for (int64_t i = 0; i < split.size(); ++i) split.pixels(i, scratch);
}

std::vector<std::string> splits() {
  std::vector<std::string> seeds;
  for (const ImageStorage storage : {ImageStorage::pixels, ImageStorage::files}) {
    const std::filesystem::path path = file_with("", "seed.images");
    write_image_split(path.parent_path(), "seed", {.storage = storage, .channels = 3, .classes = {"cat", "dog"}},
                      [&](ImageSplitWriter& out) {
                        for (int32_t label : {0, 1, -1}) {
                          const std::vector<uint8_t> pixels = numbered_pixels(4 * 5 * 3);
                          const std::string file = png(5, 4, PNG_FORMAT_RGB);
                          out.add(storage == ImageStorage::files ? bytes_of(file) : std::as_bytes(std::span(pixels)), 4,
                                  5, label);
                        }
                      });
    seeds.push_back(content_of(path.string()));
  }
  return seeds;
}

}  // namespace

std::vector<Target> image_targets() {
  return {{"picture", read_picture, pictures},
          {"mnist", read_mnist, mnist},
          {"cifar", read_cifar, cifar},
          {"images", read_split, splits}};
}

}  // namespace qn::fuzz
