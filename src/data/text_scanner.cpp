#include "data/text_scanner.h"

#include "core/error.h"

namespace qn {
namespace {

constexpr std::array<ByteClass, 256> make_byte_classes() {
  std::array<ByteClass, 256> classes{};
  for (int c = 0; c < 256; ++c) {
    const bool space = c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
    classes[static_cast<size_t>(c)] = (c == '\n' || c == '\r') ? ByteClass::newline
                                      : space                  ? ByteClass::space
                                      : c >= 0x80 || c == 0    ? ByteClass::multibyte
                                                               : ByteClass::token;
  }
  return classes;
}

}  // namespace

const std::array<ByteClass, 256> kByteClass = make_byte_classes();

bool is_unicode_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

uint32_t decode_utf8(std::string_view text, int& length) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint32_t lead = byte(0);
  const int bytes = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  length = 0;
  if (bytes == 0 || text.size() < static_cast<size_t>(bytes)) return 0;
  uint32_t code_point = bytes == 1 ? lead : lead & (0xffu >> (bytes + 1));
  for (int i = 1; i < bytes; ++i) {
    const uint32_t next = byte(static_cast<size_t>(i));
    if ((next & 0xc0) != 0x80) return 0;
    code_point = code_point << 6 | (next & 0x3f);
  }
  const bool overlong = (bytes == 3 && code_point < 0x800) || (bytes == 4 && code_point < 0x10000);
  const bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
  if (overlong || surrogate || code_point > 0x10ffff) return 0;
  length = lead == 0 ? 0 : bytes;
  return code_point;
}

void fail_invalid_utf8(std::string_view name, int64_t line, std::string_view line_up_to_byte, uint8_t byte) {
  if (byte == 0)
    fail("{}:{}: byte 0x00 at position {} of the line: this is no text, or text in another encoding than UTF-8", name,
         line, line_up_to_byte.size() + 1);
  fail(
      "{}:{}: byte 0x{:02x} at position {} of the line is not valid UTF-8; convert the file first, for instance, if it "
      "is in Latin-1, "
      "with 'iconv -f latin1 -t utf-8 {} > converted.txt'",
      name, line, byte, line_up_to_byte.size() + 1, name);
}

void check_line_is_utf8(std::string_view line, std::string_view name) {
  for (size_t at = 0; at < line.size();) {
    const ByteClass kind = kByteClass[static_cast<uint8_t>(line[at])];
    int length = 1;
    if (kind == ByteClass::multibyte) decode_utf8(line.substr(at), length);
    if (length == 0)
      fail(
          "{}: byte 0x{:02x} at position {} is not valid UTF-8: convert the text first, for instance, if it is in "
          "Latin-1, with 'iconv -f latin1 -t utf-8'",
          name, static_cast<uint8_t>(line[at]), at + 1);
    at += static_cast<size_t>(length);
  }
}

}  // namespace qn
