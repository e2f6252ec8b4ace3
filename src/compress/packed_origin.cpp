#include "compress/packed_origin.h"

#include "core/error.h"
#include "core/stored_values.h"
#include "core/strict_json.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

StoredType type_named(const std::string& name) {
  for (const StoredType type : {StoredType::f32, StoredType::f16, StoredType::bf16})
    if (name == name_of(type)) return type;
  fail("'{}' is no type of weights", name);
}

/// Whether a shape has rows * cols elements, rows of them along its first axis.
bool fits(const std::vector<int64_t>& shape, const PackedWeight& packed) {
  if (shape.size() < 2 || shape[0] != packed.rows) return false;
  int64_t cols = 1;
  for (size_t i = 1; i < shape.size(); ++i)
    if (shape[i] < 1 || __builtin_mul_overflow(cols, shape[i], &cols)) return false;
  return cols == packed.cols;
}

PackedOrigin origin_from_json(const Json& json, const std::string& where) {
  PackedOrigin origin{.metadata = json.at("metadata").get<std::map<std::string, std::string>>(),
                      .weights = {},
                      .bytes = static_cast<uint64_t>(json_integer(json.at("bytes"), where + ": bytes", 0, INT64_MAX))};
  for (const auto& [name, weight] : json.at("weights").items()) {
    OriginWeight& own = origin.weights[name];
    own.names = weight.at("names").get<std::vector<std::string>>();
    own.type = type_named(weight.at("dtype").get<std::string>());
    for (const Json& extent : weight.at("shape"))
      own.shape.push_back(json_integer(extent, fmt::format("{}: shape of '{}'", where, name), 1, INT64_MAX));
  }
  return origin;
}

}  // namespace

std::string origin_to_text(const PackedOrigin& origin) {
  Json weights = Json::object();
  for (const auto& [name, weight] : origin.weights)
    weights[name] = {{"names", weight.names}, {"dtype", name_of(weight.type)}, {"shape", weight.shape}};
  return Json{{"bytes", origin.bytes}, {"metadata", origin.metadata}, {"weights", weights}}.dump();
}

std::optional<PackedOrigin> packed_origin(const SafetensorsReader& file, const std::string& path) {
  const auto text = file.metadata().find(kOriginKey);
  if (text == file.metadata().end()) return std::nullopt;
  const std::string where = fmt::format("{}: metadata '{}'", path, kOriginKey);
  PackedOrigin origin;
  try {
    origin = origin_from_json(parse_strict_json<Json>(text->second, where), where);
  } catch (const Json::exception& error) {
    fail("{} does not say what was packed ({}): this is no intact packed file", where, json_problem(error));
  }
  for (const auto& [name, packed] : packed_weights(file, nullptr)) {
    const auto weight = origin.weights.find(name);
    QN_CHECK(weight != origin.weights.end() && !weight->second.names.empty() && fits(weight->second.shape, packed),
             "{}: metadata '{}' does not fit weight '{}' of {} x {}: this is no intact packed file", path, kOriginKey,
             name, packed.rows, packed.cols);
  }
  return origin;
}

}  // namespace qn
