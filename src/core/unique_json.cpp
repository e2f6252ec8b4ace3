#include "core/unique_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace qn {

nlohmann::json parse_unique_json(std::string_view text, std::string& repeated) {
  using nlohmann::json;
  std::vector<std::set<std::string>> open;
  const json::parser_callback_t callback = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      repeated = parsed.get<std::string>();
    return true;
  };
  return json::parse(text.begin(), text.end(), callback);
}

}  // namespace qn
