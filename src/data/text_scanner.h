// Splits UTF-8 text into lines and tokens the way the reference's tokenizer does (fairseq semantics 6.1): tokens are
// separated by Unicode white space, lines end with \n, \r or \r\n. One pass, no copies, strict UTF-8.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace qn {

/// True for the code points for which Python's str.isspace() is true: what str.split() separates at.
bool is_unicode_space(uint32_t code_point);

/// Decodes the character at `text` (not empty). Sets `length` to its bytes, or to 0 when the bytes are no valid UTF-8
/// (overlong forms, surrogates and values above U+10FFFF are invalid, as in Python), or NUL, which no text has.
uint32_t decode_utf8(std::string_view text, int& length);

/// The bytes of a mapped file as text.
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

enum class ByteClass : uint8_t { token, space, newline, multibyte };  ///< NUL goes with multibyte: looked at closely
extern const std::array<ByteClass, 256> kByteClass;

[[noreturn]] void fail_invalid_utf8(std::string_view name, int64_t line, std::string_view line_up_to_byte,
                                    uint8_t byte);

/// Throws qn::Error beginning with `name` when a line of text that is no file's is no valid UTF-8.
void check_line_is_utf8(std::string_view line, std::string_view name);

/// Calls visitor.token(std::string_view) for every token and visitor.end_line() after every line, in text order. A last
/// line without line end counts. Throws qn::Error naming `name` (the file) and the line when the text is no valid
/// UTF-8.
template <typename Visitor>
void scan_text(std::string_view text, std::string_view name, Visitor&& visitor) {
  const char* const end = text.data() + text.size();
  const char* line_start = text.data();
  const char* token_start = nullptr;
  int64_t line = 1;
  const char* p = text.data();
  const auto finish_token = [&](const char* token_end) {
    if (token_start != nullptr)
      visitor.token(std::string_view(token_start, static_cast<size_t>(token_end - token_start)));
    token_start = nullptr;
  };
  while (p < end) {
    switch (kByteClass[static_cast<uint8_t>(*p)]) {
      case ByteClass::token:
        if (token_start == nullptr) token_start = p;
        do ++p;
        while (p < end && kByteClass[static_cast<uint8_t>(*p)] == ByteClass::token);
        break;
      case ByteClass::space:
        finish_token(p++);
        break;
      case ByteClass::newline:
        finish_token(p);
        p += (*p == '\r' && p + 1 < end && p[1] == '\n') ? 2 : 1;
        visitor.end_line();
        ++line;
        line_start = p;
        break;
      case ByteClass::multibyte: {
        int length = 0;
        const uint32_t code_point = decode_utf8({p, static_cast<size_t>(end - p)}, length);
        if (length == 0) {
          fail_invalid_utf8(name, line, {line_start, static_cast<size_t>(p - line_start)}, static_cast<uint8_t>(*p));
        }
        if (is_unicode_space(code_point)) {
          finish_token(p);
        } else if (token_start == nullptr) {
          token_start = p;
        }
        p += length;
        break;
      }
    }
  }
  finish_token(p);
  if (line_start < end) visitor.end_line();
}

}  // namespace qn
