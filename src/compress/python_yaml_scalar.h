// What a YAML scalar without tag or quotes is to PyYAML.
#pragma once

#include <optional>
#include <string>

#include "compress/python_yaml.h"

namespace qn {

/// The type by PyYAML's rules for YAML 1.1: yes, 0o17, 1:30, 1_000, 2024-01-31 and 1e3 are a boolean, a text, two
/// integers, a date and a text.
PythonValue::Type python_type(const std::string& plain);

/// The value of an integer in any of YAML 1.1's notations; nothing if it is none or does not fit.
std::optional<int64_t> python_integer(std::string text);

}  // namespace qn
