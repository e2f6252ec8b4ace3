// Command-line options whose values are enumerations: the names are those of enum_names.h.
#pragma once

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn::cli {

/// An option that sets `value` by name, its default being what is there now; other names than those of `choices` are
/// refused with the nearest.
template <NamedEnum E>
CLI::Option* add_choice(CLI::App& app, const std::string& option, E& value, const std::string& doc,
                        const std::vector<E>& choices = all_values<E>()) {
  const std::vector<std::string> names = names_of(choices);
  const auto check = [names](const std::string& text) {
    const bool known = std::find(names.begin(), names.end(), text) != names.end();
    return known ? std::string() : wrong_choice(text, fmt::format("'{}'", text), names);
  };
  return app
      .add_option_function<std::string>(
          option, [&value, option](const std::string& text) { value = value_named<E>(text, option); }, doc)
      ->check(CLI::Validator(check, fmt::format("{{{}}}", fmt::join(names, ","))))
      ->default_str(name_of(value));
}

}  // namespace qn::cli
