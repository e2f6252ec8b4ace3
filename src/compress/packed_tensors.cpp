#include "compress/packed_tensors.h"

#include <algorithm>

#include "compress/representation.h"
#include "core/half.h"
#include "core/stored_values.h"
#include "core/strict_json.h"
#include "quant/bit_packing.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

using SortedJson = nlohmann::json;

std::string scale_name(const std::string& name) { return name + "_scale"; }

/// Version 1: a weight is quantized where there are codes, by product quantization, and its codebook tells how.
PackedWeights version_1_weights(const SafetensorsReader& file, const WeightSet* weights) {
  const std::string suffix = std::string(".") + kCodes;
  PackedWeights found;
  for (const StoredTensor& codes : file.tensors()) {
    if (!codes.name.ends_with(suffix)) continue;
    const std::string name = codes.name.substr(0, codes.name.size() - suffix.size()) + ".weight";
    const StoredTensor& centroids = file.at(part_name(name, PqQuantizer::kCentroids));
    QN_CHECK(centroids.shape.size() == 2, "{} must be a matrix [K, d]", centroids.name);
    const int64_t d = centroids.shape[1], k = centroids.shape[0];
    PackedWeight packed{std::make_shared<PqQuantizer>(d, k), 1, 0};
    const Weight* weight = weights != nullptr ? weights->find(name) : nullptr;
    if (codes.shape.size() == 2)
      packed = {packed.quantizer, codes.shape[1], codes.shape[0] * d};
    else
      packed.cols = std::ssize(codes.bytes) * 8 / bits_per_code(k) * d;
    if (weight != nullptr) packed = {packed.quantizer, weight->rows(), weight->cols()};
    found[name] = packed;
  }
  return found;
}

/// No file holds so many, and counts of bits stay in range.
constexpr int64_t kMostElements = int64_t{1} << 48;

PackedWeights weights_from_json(const SortedJson& json, const std::string& where) {
  std::vector<std::shared_ptr<const Quantizer>> quantizers;
  for (const SortedJson& entry : json.at("quantizers"))
    quantizers.push_back(make_quantizer(entry.at("type"), entry.at("options").get<QuantizerOptions>()));
  PackedWeights found;
  for (const auto& [name, entry] : json.at("weights").items()) {
    const std::string what = fmt::format("{}: '{}': ", where, name);
    QN_CHECK(!quantizers.empty(), "{}there are no quantizers", what);
    QN_CHECK(name.ends_with(".weight"), "{}names of quantized weights end in .weight", what);
    const int64_t number = json_integer(entry.at(0), what + "its quantizer", 0, std::ssize(quantizers) - 1);
    const PackedWeight packed{quantizers[static_cast<size_t>(number)],
                              json_integer(entry.at(1), what + "its number of rows", 1, INT32_MAX),
                              json_integer(entry.at(2), what + "its number of columns", 1, INT32_MAX)};
    QN_CHECK(packed.rows <= kMostElements / packed.cols, "{}a matrix of {} x {} is too large", what, packed.rows,
             packed.cols);
    packed.quantizer->check(packed.rows, packed.cols, name);
    found[name] = packed;
  }
  return found;
}

/// Before anything of such a size is made: the file has the codes and values that its table promises.
void check_stored(const SafetensorsReader& file, const std::string& weight, const PackedWeight& packed) {
  const QuantizedLayout layout = packed.quantizer->layout(packed.rows, packed.cols);
  const StoredTensor& codes = file.at(part_name(weight, kCodes));
  QN_CHECK(codes.bytes.size() == layout.code_bytes(), "'{}': tensor {} has {} bytes; {} codes of {} bits take {}",
           file.path(), codes.name, codes.bytes.size(), layout.codes, layout.bits(), layout.code_bytes());
  for (const SideLayout& side : layout.side) {
    const std::string name = part_name(weight, side.name);
    QN_CHECK(file.at(name).shape == side.shape.to_vector(), "'{}': tensor {} must have the shape {}", file.path(), name,
             side.shape.to_string());
  }
}

PackedWeights listed_weights(const SafetensorsReader& file, const WeightSet* weights) {
  if (file.metadata_at("version") == kVersion1) return version_1_weights(file, weights);
  const std::string where = fmt::format("'{}', metadata '{}'", file.path(), kQuantizedKey);
  try {
    return weights_from_json(parse_strict_json<SortedJson>(file.metadata_at(kQuantizedKey), where), where);
  } catch (const SortedJson::exception& error) {
    fail("{} does not describe quantized weights ({}): this is no intact packed model", where, json_problem(error));
  }
}

}  // namespace

PackedTensors::PackedTensors()
    : table_(std::make_unique<SortedJson>(
          SortedJson{{"quantizers", SortedJson::array()}, {"weights", SortedJson::object()}})) {}
PackedTensors::~PackedTensors() = default;

void PackedTensors::add_values(const std::string& name, const Shape& shape, std::span<const float> values,
                               ValueStorage storage) {
  switch (storage) {
    case ValueStorage::f32:
      return writer_.add(name, StoredType::f32, shape.to_vector(), std::as_bytes(values));
    case ValueStorage::f16: {
      std::vector<uint16_t> halves(values.size());
      std::transform(values.begin(), values.end(), halves.begin(), float_to_half);
      return writer_.add(name, StoredType::f16, shape.to_vector(), halves);
    }
    case ValueStorage::int8: {
      const float scale = int8_scale(values);
      std::vector<int8_t> small(values.size());
      std::transform(values.begin(), values.end(), small.begin(), [&](float v) { return to_int8(v, scale); });
      writer_.add(name, StoredType::i8, shape.to_vector(), small);
      return writer_.add(scale_name(name), StoredType::f32, {1}, std::vector<float>{scale});
    }
    case ValueStorage::log8: {
      const LogGrid grid = LogGrid::of(values);
      std::vector<int8_t> small(values.size());
      std::transform(values.begin(), values.end(), small.begin(), [&](float v) { return grid.code(v); });
      writer_.add(name, StoredType::i8, shape.to_vector(), small);
      return writer_.add(scale_name(name), StoredType::f32, {2}, std::vector<float>{grid.largest, grid.step});
    }
  }
}

void PackedTensors::plan_values(const std::string& name, const Shape& shape, ValueStorage storage) {
  const StoredType type = storage == ValueStorage::f32   ? StoredType::f32
                          : storage == ValueStorage::f16 ? StoredType::f16
                                                         : StoredType::i8;
  writer_.add_planned(name, type, shape.to_vector());
  if (storage == ValueStorage::int8) writer_.add_planned(scale_name(name), StoredType::f32, {1});
  if (storage == ValueStorage::log8) writer_.add_planned(scale_name(name), StoredType::f32, {2});
}

void PackedTensors::describe(const std::string& weight, const PackedWeight& packed) {
  const SortedJson quantizer{{"type", packed.quantizer->type()}, {"options", packed.quantizer->options()}};
  SortedJson& known = (*table_)["quantizers"];
  const auto place = std::find(known.begin(), known.end(), quantizer);
  const auto number = place - known.begin();
  if (place == known.end()) known.push_back(quantizer);
  (*table_)["weights"][weight] = {number, packed.rows, packed.cols};
}

void PackedTensors::add_quantized(const std::string& weight, const QuantizedTensor& tensor, ValueStorage side) {
  describe(weight, {tensor.quantizer, tensor.rows, tensor.cols});
  const QuantizedLayout layout = tensor.quantizer->layout(tensor.rows, tensor.cols);
  writer_.add(part_name(weight, kCodes), StoredType::u8, layout.stored_shape(),
              pack_codes(tensor.codes, layout.bits()));
  for (size_t i = 0; i < layout.side.size(); ++i)
    add_values(part_name(weight, layout.side[i].name), layout.side[i].shape, tensor.values[i].values,
               layout.side[i].stored(side));
}

void PackedTensors::plan_quantized(const std::string& weight, const PackedWeight& packed, ValueStorage side) {
  describe(weight, packed);
  const QuantizedLayout layout = packed.quantizer->layout(packed.rows, packed.cols);
  writer_.add_planned(part_name(weight, kCodes), StoredType::u8, layout.stored_shape());
  for (const SideLayout& s : layout.side) plan_values(part_name(weight, s.name), s.shape, s.stored(side));
}

void PackedTensors::close_table() {
  writer_.set_metadata(kQuantizedKey, table_->dump());
  writer_.set_checksummed();
}

uint64_t PackedTensors::header_bytes() {
  close_table();
  return writer_.header_bytes();
}

uint64_t PackedTensors::write(const std::filesystem::path& path) {
  close_table();
  writer_.write(path);
  return writer_.file_size();
}

PackedWeights packed_weights(const SafetensorsReader& file, const WeightSet* weights) {
  PackedWeights found = listed_weights(file, weights);
  for (const auto& [name, packed] : found) check_stored(file, name, packed);
  return found;
}

QuantizedTensor read_side_values(const SafetensorsReader& file, const std::string& weight, const PackedWeight& packed) {
  check_stored(file, weight, packed);
  QuantizedTensor tensor{.quantizer = packed.quantizer, .rows = packed.rows, .cols = packed.cols};
  for (const SideLayout& side : packed.quantizer->layout(packed.rows, packed.cols).side)
    tensor.values.push_back({side.name, side.shape, read_values(file, part_name(weight, side.name))});
  return tensor;
}

QuantizedTensor read_quantized(const SafetensorsReader& file, const std::string& weight, const PackedWeight& packed) {
  QuantizedTensor tensor = read_side_values(file, weight, packed);
  const QuantizedLayout layout = packed.quantizer->layout(packed.rows, packed.cols);
  tensor.codes.resize(static_cast<size_t>(layout.codes));
  unpack_codes(file.values<uint8_t>(part_name(weight, kCodes), StoredType::u8), layout.bits(), tensor.codes);
  return tensor;
}

std::vector<std::string> tensor_names(const std::string& weight, const PackedWeight& packed) {
  std::vector<std::string> names{part_name(weight, kCodes)};
  for (const SideLayout& side : packed.quantizer->layout(packed.rows, packed.cols).side) {
    names.push_back(part_name(weight, side.name));
    if (side.roundable || side.always == ValueStorage::log8) names.push_back(scale_name(names.back()));
  }
  return names;
}

std::vector<float> read_values(const SafetensorsReader& file, const std::string& name) {
  const StoredTensor& t = file.at(name);
  if (t.type == StoredType::f32 || t.type == StoredType::f16) return floats_of(t);
  QN_CHECK(t.type == StoredType::i8, "tensor {} is {}: a packed model holds F32, F16 or I8 values", name,
           name_of(t.type));
  const std::vector<float> scale = file.values<float>(scale_name(name), StoredType::f32);
  QN_CHECK(scale.size() == 1 || scale.size() == 2, "tensor {} must hold one number, or two where {} has powers of two",
           scale_name(name), name);
  std::vector<float> values;
  if (scale.size() == 2) {
    const LogGrid grid{scale[0], scale[1]};
    QN_CHECK(
        grid.largest >= 0.0f && grid.step >= 1.0f / 64.0f && grid.step <= 0.25f,
        "tensor {} must hold the largest magnitude and a step from 1/64 to 1/4, not {} and {}: the file is damaged",
        scale_name(name), grid.largest, grid.step);
    for (const int8_t v : file.values<int8_t>(name, StoredType::i8)) values.push_back(grid.value(v));
    return values;
  }
  for (const int8_t v : file.values<int8_t>(name, StoredType::i8)) values.push_back(static_cast<float>(v) * scale[0]);
  return values;
}

ValueStorage stored_as(StoredType type) {
  return type == StoredType::f32 ? ValueStorage::f32 : type == StoredType::i8 ? ValueStorage::int8 : ValueStorage::f16;
}

}  // namespace qn
