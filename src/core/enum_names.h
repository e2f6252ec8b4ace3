// Names of an enumeration's values, written once beside it: configurations, command lines, files and messages use them.
//
//   enum class Rule { nag, adam };
//   template <>
//   struct EnumNames<Rule> {
//     static constexpr EnumName<Rule> kAll[] = {{Rule::nag, "nag"}, {Rule::adam, "adam"}};
//   };
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/text.h"

namespace qn {

template <class E>
struct EnumName {
  E value;
  const char* name;
};

template <class E>
struct EnumNames;

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires {
  EnumNames<E>::kAll;
};

template <NamedEnum E>
const char* name_of(E value) {
  for (const EnumName<E>& n : EnumNames<E>::kAll)
    if (n.value == value) return n.name;
  QN_ASSERT(false, "value {} has no name", static_cast<int>(value));
}

/// Every value, in the order of the table.
template <NamedEnum E>
std::vector<E> all_values() {
  std::vector<E> values;
  for (const EnumName<E>& n : EnumNames<E>::kAll) values.push_back(n.value);
  return values;
}

template <NamedEnum E>
std::vector<std::string> names_of(const std::vector<E>& values) {
  std::vector<std::string> names;
  for (const E value : values) names.emplace_back(name_of(value));
  return names;
}

template <NamedEnum E>
std::optional<E> find_value(std::string_view name) {
  for (const EnumName<E>& n : EnumNames<E>::kAll)
    if (n.name == name) return n.value;
  return std::nullopt;
}

/// The value of this name. Throws qn::Error, with the nearest name, where there is none; `what` begins the message.
template <NamedEnum E>
E value_named(std::string_view name, std::string_view what) {
  const std::optional<E> value = find_value<E>(name);
  if (!value) fail("{} {}", what, wrong_choice(name, fmt::format("'{}'", name), names_of(all_values<E>())));
  return *value;
}

}  // namespace qn
