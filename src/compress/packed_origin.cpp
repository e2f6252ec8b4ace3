#include "compress/packed_origin.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/stored_values.h"

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

PackedOrigin origin_from_json(const Json& json) {
  PackedOrigin origin{.metadata = json.at("metadata").get<std::map<std::string, std::string>>(),
                      .weights = {},
                      .bytes = json.at("bytes")};
  for (const auto& [name, weight] : json.at("weights").items())
    origin.weights[name] = {weight.at("names").get<std::vector<std::string>>(),
                            type_named(weight.at("dtype").get<std::string>()),
                            weight.at("shape").get<std::vector<int64_t>>()};
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
  PackedOrigin origin;
  try {
    origin = origin_from_json(Json::parse(text->second));
  } catch (const Json::exception& error) {
    fail("{}: metadata '{}' does not say what was packed ({}): this is no intact packed file", path, kOriginKey,
         error.what());
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
