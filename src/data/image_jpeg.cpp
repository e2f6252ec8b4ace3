#include <csetjmp>
#include <cstdio>
// jpeglib.h needs FILE and size_t declared before it.
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>

#include "core/error.h"
#include "data/image_codecs.h"

namespace qn {
namespace {

// A block of 8 x 8 takes one bit or more, and there are no more than 16 x 16 pixels to a block of the finest component.
constexpr int64_t kMostPixelsPerJpegByte = 2048;

/// Whether pixels are missing or wrong after a warning; bytes between segments and odd versions leave them right.
bool is_damage(int code) {
  return code != JWRN_EXTRANEOUS_DATA && code != JWRN_JFIF_MAJOR && code != JWRN_ADOBE_XFORM &&
         code != JWRN_BOGUS_PROGRESSION;
}

/// libjpeg leaves by longjmp, so functions that call it keep no objects with destructors.
class JpegReader {
 public:
  explicit JpegReader(std::span<const std::byte> file) : file_(file) {
    decoder_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = [](j_common_ptr d) {
      auto* errors = reinterpret_cast<Errors*>(d->err);
      errors->base.format_message(d, errors->message);
      std::longjmp(errors->leave, 1);
    };
    errors_.base.emit_message = [](j_common_ptr d, int level) {
      auto* errors = reinterpret_cast<Errors*>(d->err);
      if (level >= 0 || errors->damaged || !is_damage(errors->base.msg_code)) return;
      errors->damaged = true;
      errors->base.format_message(d, errors->message);
    };
  }
  ~JpegReader() { jpeg_destroy_decompress(&decoder_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  /// False: message() says why.
  bool start() {
    if (setjmp(errors_.leave) != 0) return false;
    jpeg_create_decompress(&decoder_);
    jpeg_mem_src(&decoder_, reinterpret_cast<const unsigned char*>(file_.data()), file_.size());
    jpeg_read_header(&decoder_, TRUE);
    if (decoder_.jpeg_color_space != JCS_GRAYSCALE) decoder_.out_color_space = is_cmyk() ? JCS_CMYK : JCS_RGB;
    return true;
  }
  bool read(uint8_t* pixels, int64_t row_bytes) {
    if (setjmp(errors_.leave) != 0) return false;
    jpeg_start_decompress(&decoder_);
    while (decoder_.output_scanline < decoder_.output_height) {
      JSAMPROW row = pixels + static_cast<int64_t>(decoder_.output_scanline) * row_bytes;
      jpeg_read_scanlines(&decoder_, &row, 1);
    }
    jpeg_finish_decompress(&decoder_);
    return !errors_.damaged;
  }
  int64_t height() const { return decoder_.image_height; }
  int64_t width() const { return decoder_.image_width; }
  int64_t channels() const { return decoder_.jpeg_color_space == JCS_GRAYSCALE ? 1 : is_cmyk() ? 4 : 3; }
  const char* message() const { return errors_.message; }

 private:
  bool is_cmyk() const { return decoder_.jpeg_color_space == JCS_CMYK || decoder_.jpeg_color_space == JCS_YCCK; }

  struct Errors {
    jpeg_error_mgr base{};
    std::jmp_buf leave{};
    char message[JMSG_LENGTH_MAX]{};
    bool damaged = false;
  };
  std::span<const std::byte> file_;
  Errors errors_;
  jpeg_decompress_struct decoder_{};
};

/// Pillow's: the file has the inks inverted.
Image rgb_of_cmyk(const Image& inks) {
  Image rgb(inks.height, inks.width, 3);
  for (size_t i = 0; i < rgb.pixels.size() / 3; ++i) {
    const int light = inks.pixels[4 * i + 3];  // 255 - black
    for (size_t c = 0; c < 3; ++c) {
      const int product = (255 - inks.pixels[4 * i + c]) * light + 128;
      rgb.pixels[3 * i + c] = static_cast<uint8_t>(std::max(0, light - ((product >> 8) + product) / 256));
    }
  }
  return rgb;
}

}  // namespace

Image decode_jpeg(std::span<const std::byte> file, const std::string& name) {
  JpegReader reader(file);
  QN_CHECK(reader.start(), "{} is no JPEG file that can be read: {}", name, reader.message());
  check_image_size(reader.height(), reader.width(), file.size(), kMostPixelsPerJpegByte, name);
  Image image(reader.height(), reader.width(), reader.channels());
  QN_CHECK(reader.read(image.pixels.data(), image.width * image.channels), "{} is damaged: {}", name, reader.message());
  return image.channels == 4 ? rgb_of_cmyk(image) : image;
}

}  // namespace qn
