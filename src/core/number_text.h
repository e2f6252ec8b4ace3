// Numbers as readers of YAML 1.1 (PyYAML) take them for numbers.
#pragma once

#include <string>
#include <string_view>

namespace qn {

/// A decimal number with a point in it: "3" -> "3.0", "1e-08" -> "1.0e-08". Without, readers of YAML 1.1 take the first
/// for an integer and the second for a text.
std::string number_with_fraction(std::string number);

/// The same for every number with an exponent of a JSON text.
std::string json_for_yaml(std::string_view json);

}  // namespace qn
