#include "data/byte_level.h"

#include <array>

#include "data/text_scanner.h"

namespace qn {
namespace {

/// \s is Unicode's property White_Space, which PCRE2's \s is not quite.
std::string word_expression() {
  const std::string space = R"(\t-\r\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}++| ?\p{N}++| ?[^\p{L}\p{N})" + space + "]++|[" + space + "]+(?=[" + space +
         R"(]|\z)|[)" + space + "]++";
}

struct ByteCharacters {
  std::array<uint32_t, 256> character{};
  std::vector<int32_t> byte = std::vector<int32_t>(512, -1);  ///< by character
  std::vector<uint8_t> order;
};

const ByteCharacters& byte_characters() {
  static const ByteCharacters all = [] {
    ByteCharacters made;
    const auto printable = [](int b) { return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
    uint32_t next = 256;
    for (const bool themselves : {true, false})
      for (int b = 0; b < 256; ++b) {
        if (printable(b) != themselves) continue;
        const uint32_t c = themselves ? static_cast<uint32_t>(b) : next++;
        made.character[static_cast<size_t>(b)] = c;
        made.byte[c] = b;
        made.order.push_back(static_cast<uint8_t>(b));
      }
    return made;
  }();
  return all;
}

}  // namespace

const WordPattern& byte_level_words() {
  static const WordPattern pattern(word_expression());
  return pattern;
}

const WordPattern& one_word() {
  static const WordPattern pattern("(?s).++");
  return pattern;
}

std::string spelled_byte(uint8_t byte) {
  const uint32_t c = byte_characters().character[byte];  // below U+0800
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
}

const std::vector<uint8_t>& byte_level_order() { return byte_characters().order; }

std::string bytes_of_token(std::string_view token) {
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    int length = 0;
    const uint32_t c = decode_utf8(rest, length);
    const int32_t byte = length > 0 && c < byte_characters().byte.size() ? byte_characters().byte[c] : -1;
    if (byte < 0) return std::string(token);
    bytes += static_cast<char>(byte);
    rest.remove_prefix(static_cast<size_t>(length));
  }
  return bytes;
}

}  // namespace qn
