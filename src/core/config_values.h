// Configurations as lists of keys and values, for comparing.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qn {

/// Full key and value text of every leaf of a dumped configuration, in its order. Throws qn::Error for bad YAML.
std::vector<std::pair<std::string, std::string>> config_values(std::string_view text);
/// Whether two of these texts say the same: older programs wrote 1e-08 for 1.0e-08.
bool same_config_value(const std::string& a, const std::string& b);

}  // namespace qn
