#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "core/error.h"
#include "data/image_codecs.h"

namespace qn {
namespace {

constexpr int64_t kMostPixelsPerPngByte = 8 * 1032;  // one bit each, and deflate's highest ratio

/// libpng leaves by longjmp, so functions that call it keep no objects with destructors.
class PngReader {
 public:
  explicit PngReader(std::span<const std::byte> file) : rest_(file) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    QN_CHECK(info_ != nullptr, "libpng cannot start: no memory");
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  /// False: message() says why.
  bool start() {
    if (setjmp(leave_) != 0) return false;
    png_set_read_fn(png_, this, on_read);
    png_read_info(png_, info_);
    height_ = png_get_image_height(png_, info_);
    width_ = png_get_image_width(png_, info_);
    return true;
  }
  /// 8 bits, grey or RGB. Call it before what is below.
  bool convert() {
    if (setjmp(leave_) != 0) return false;
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  int64_t channels() const { return png_get_channels(png_, info_); }
  bool read(uint8_t** rows) {
    if (setjmp(leave_) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }
  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  const char* message() const { return message_; }

 private:
  static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(self->message_, message, sizeof self->message_ - 1);
    std::longjmp(self->leave_, 1);
  }
  static void on_read(png_structp png, png_bytep out, size_t count) {
    auto* self = static_cast<PngReader*>(png_get_io_ptr(png));
    if (count > self->rest_.size()) png_error(png, "it ends too soon");
    std::memcpy(out, self->rest_.data(), count);
    self->rest_ = self->rest_.subspan(count);
  }

  std::span<const std::byte> rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int64_t height_ = 0, width_ = 0;
  std::jmp_buf leave_{};
  char message_[128]{};
};

}  // namespace

Image decode_png(std::span<const std::byte> file, const std::string& name) {
  PngReader reader(file);
  QN_CHECK(reader.start(), "{} is no PNG file that can be read: {}", name, reader.message());
  check_image_size(reader.height(), reader.width(), file.size(), kMostPixelsPerPngByte, name);
  QN_CHECK(reader.convert(), "{} is no PNG file that can be read: {}", name, reader.message());
  Image image(reader.height(), reader.width(), reader.channels());
  std::vector<uint8_t*> rows(static_cast<size_t>(image.height));
  for (int64_t y = 0; y < image.height; ++y) rows[static_cast<size_t>(y)] = image.row(y);
  QN_CHECK(reader.read(rows.data()), "{} is damaged: {}", name, reader.message());
  return image;
}

}  // namespace qn
