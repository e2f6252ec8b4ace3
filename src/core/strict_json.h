// JSON of files that may come from anywhere: no object repeats a key (no reader could tell the two apart), numbers are
// whole and in range. Heavy: for .cpp files.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace qn {

/// `repeated` becomes a key that some object has twice, or stays empty. Throws nlohmann::json::exception for what is no
/// JSON.
template <class Json>
Json parse_unique_json(std::string_view text, std::string& repeated) {
  std::vector<std::set<std::string>> open;
  using Event = typename Json::parse_event_t;
  const typename Json::parser_callback_t callback = [&](int, Event event, Json& parsed) {
    if (event == Event::object_start) open.emplace_back();
    if (event == Event::object_end) open.pop_back();
    if (event == Event::key && !open.back().insert(parsed.template get<std::string>()).second)
      repeated = parsed.template get<std::string>();
    return true;
  };
  return Json::parse(text.begin(), text.end(), callback);
}

/// Where JSON ends to be JSON, or what else is wrong with it, without the words of the library.
inline std::string json_problem(const nlohmann::json::exception& error) {
  if (const auto* parse = dynamic_cast<const nlohmann::json::parse_error*>(&error))
    return fmt::format("wrong at byte {}", parse->byte);
  const std::string_view text = error.what();  // "[json.exception.type_error.302] type must be ..."
  const size_t end = text.find("] ");
  return std::string(end == std::string_view::npos ? text : text.substr(end + 2));
}

/// The same, throwing qn::Error, which begins with `what`, for a repeated key, too.
template <class Json>
Json parse_strict_json(std::string_view text, const std::string& what) {
  std::string repeated;
  Json json;
  try {
    json = parse_unique_json<Json>(text, repeated);
  } catch (const typename Json::exception& error) {
    fail("{} is no JSON ({}): the file is damaged", what, json_problem(error));
  }
  QN_CHECK(repeated.empty(), "{} says '{}' twice: the file is damaged", what, repeated);
  return json;
}

/// A whole number out of [least, most]. Throws qn::Error, which begins with `what`, for everything else.
template <class Json>
int64_t json_integer(const Json& value, std::string_view what, int64_t least, int64_t most) {
  const bool fits = value.is_number_unsigned() ? value.template get<uint64_t>() <= static_cast<uint64_t>(most) &&
                                                     static_cast<int64_t>(value.template get<uint64_t>()) >= least
                                               : value.is_number_integer() && value.template get<int64_t>() >= least &&
                                                     value.template get<int64_t>() <= most;
  QN_CHECK(fits, "{} is {}: a whole number from {} to {} is due", what, value.dump(), least, most);
  return value.template get<int64_t>();
}

}  // namespace qn
