#include "data/image_file.h"

#include <algorithm>
#include <string_view>

#include "core/error.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "data/image_codecs.h"

namespace qn {
namespace {

using namespace std::string_view_literals;

constexpr auto kJpegMagic = "\xff\xd8\xff"sv;
constexpr auto kPngMagic = "\x89PNG\r\n\x1a\n"sv;

Image with_channels(Image image, int64_t channels) {
  if (image.channels == channels) return image;
  Image other(image.height, image.width, channels);
  const int64_t pixels = image.height * image.width;
  const uint8_t* from = image.pixels.data();
  uint8_t* to = other.pixels.data();
  if (channels == 1) {
    for (int64_t i = 0; i < pixels; ++i) to[i] = luma(from + 3 * i);
  } else {
    for (int64_t i = 0; i < pixels; ++i) std::fill_n(to + 3 * i, 3, from[i]);
  }
  return other;
}

}  // namespace

void check_image_size(int64_t height, int64_t width, size_t bytes, int64_t most_pixels_per_byte,
                      const std::string& name) {
  QN_CHECK(height > 0 && width > 0, "{}: a picture of {} x {} pixels", name, width, height);
  QN_CHECK(height <= kMostPixels / width, "{}: {} x {} pixels are too many (at most {}); make it smaller", name, width,
           height, group_digits(kMostPixels));
  QN_CHECK(height * width / most_pixels_per_byte <= static_cast<int64_t>(bytes),
           "{} claims {} x {} pixels, for which its {} bytes are too few: it is damaged", name, width, height, bytes);
}

Image decode_image(std::span<const std::byte> file, int64_t channels, const std::string& name) {
  QN_ASSERT(channels == 1 || channels == 3, "{} channels", channels);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with(kJpegMagic)) return with_channels(decode_jpeg(file, name), channels);
  if (text.starts_with(kPngMagic)) return with_channels(decode_png(file, name), channels);
  fail("{} is neither a JPEG nor a PNG file: it is {}", name, description(kind_of(text.substr(0, 4096))));
}

Image read_image(const std::filesystem::path& path, int64_t channels) {
  return decode_image(read_file_bytes(path), channels, path.string());
}

bool is_image_name(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png";
}

}  // namespace qn
