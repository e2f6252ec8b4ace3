// JSON whose objects must not repeat a key: what is named twice could be told apart by no reader.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qn {

/// `repeated` becomes a key that some object has twice, or stays empty. Throws nlohmann::json::exception for what is no
/// JSON.
nlohmann::json parse_unique_json(std::string_view text, std::string& repeated);

}  // namespace qn
