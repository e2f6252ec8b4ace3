#include "compress/python_yaml_scalar.h"

#include <algorithm>
#include <charconv>
#include <regex>
#include <utility>
#include <vector>

namespace qn {
namespace {

// std::regex recurses once per character; no number or date comes near this length.
constexpr size_t kLongestNumber = 1000;

using Type = PythonValue::Type;

/// The types that PyYAML tells by their form, in its order.
const std::vector<std::pair<Type, std::regex>>& forms() {
  static const std::vector<std::pair<Type, std::regex>> kForms{
      {Type::boolean, std::regex("yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")},
      {Type::real, std::regex(R"([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)"
                              R"(|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))")},
      {Type::integer, std::regex(R"([-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)"
                                 R"(|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+)")},
      {Type::null, std::regex("|~|null|Null|NULL")},
      {Type::date, std::regex(R"([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?([Tt]|[ \t]+)[0-9][0-9]?)"
                              R"(:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9][0-9]?(:[0-9]{2})?))?)")}};
  return kForms;
}

std::optional<int64_t> in_base(std::string_view digits, int base) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

/// 1:30 is 90.
std::optional<int64_t> sexagesimal(std::string_view text) {
  int64_t value = 0;
  for (bool more = true; more;) {
    const size_t colon = text.find(':');
    more = colon != std::string_view::npos;
    const std::optional<int64_t> digit = in_base(text.substr(0, colon), 10);
    if (!digit || __builtin_mul_overflow(value, 60, &value) || __builtin_add_overflow(value, *digit, &value))
      return std::nullopt;
    if (more) text.remove_prefix(colon + 1);
  }
  return value;
}

}  // namespace

PythonValue::Type python_type(const std::string& plain) {
  if (plain.size() > kLongestNumber) return Type::text;
  for (const auto& [type, form] : forms())
    if (std::regex_match(plain, form)) return type;
  return Type::text;
}

std::optional<int64_t> python_integer(std::string text) {
  std::erase(text, '_');
  std::string_view digits = text;
  const bool minus = digits.starts_with('-');
  if (minus || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || digits.front() == '-') return std::nullopt;
  std::optional<int64_t> value;
  if (digits.starts_with("0b"))
    value = in_base(digits.substr(2), 2);
  else if (digits.starts_with("0x"))
    value = in_base(digits.substr(2), 16);
  else if (digits.front() == '0')
    value = in_base(digits, 8);
  else if (digits.find(':') != std::string_view::npos)
    value = sexagesimal(digits);
  else
    value = in_base(digits, 10);
  if (value && minus) value = -*value;
  return value;
}

}  // namespace qn
