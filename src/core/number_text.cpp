#include "core/number_text.h"

#include <algorithm>

namespace qn {

std::string number_with_fraction(std::string number) {
  if (number.find('.') == std::string::npos) number.insert(std::min(number.find('e'), number.size()), ".0");
  return number;
}

std::string json_for_yaml(std::string_view json) {
  constexpr std::string_view kOfNumbers = "+-.0123456789eE";
  std::string result;
  bool quoted = false;
  for (size_t at = 0; at < json.size();) {
    const char c = json[at];
    if (quoted || c == '"') {
      if (c == '"') quoted = !quoted;
      const size_t bytes = quoted && c == '\\' ? 2 : 1;
      result += json.substr(at, bytes);
      at += bytes;
    } else if (c == '-' || (c >= '0' && c <= '9')) {
      const std::string_view number = json.substr(at, json.find_first_not_of(kOfNumbers, at) - at);
      result += number.find('e') == std::string_view::npos ? number : number_with_fraction(std::string(number));
      at += number.size();
    } else {
      result += c;
      ++at;
    }
  }
  return result;
}

}  // namespace qn
