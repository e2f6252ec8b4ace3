// Command-line options whose values are enumerations: the names are those of enum_names.h.
#pragma once

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn::cli {

/// An option whose value is one of `names`; others are refused with the nearest.
inline CLI::Option* add_choice_option(CLI::App& app, const std::string& option,
                                      const std::function<void(const std::string&)>& set, const std::string& doc,
                                      const std::vector<std::string>& names) {
  const auto check = [names](const std::string& text) {
    const bool known = std::find(names.begin(), names.end(), text) != names.end();
    return known ? std::string() : wrong_choice(text, fmt::format("'{}'", text), names);
  };
  return app.add_option_function<std::string>(option, set, doc)
      ->check(CLI::Validator(check, fmt::format("{{{}}}", fmt::join(names, ","))));
}

/// The same for an enumeration, its default being what is there now.
template <NamedEnum E>
CLI::Option* add_choice(CLI::App& app, const std::string& option, E& value, const std::string& doc,
                        const std::vector<E>& choices = all_values<E>()) {
  return add_choice_option(
             app, option, [&value, option](const std::string& text) { value = value_named<E>(text, option); }, doc,
             names_of(choices))
      ->default_str(name_of(value));
}

}  // namespace qn::cli
