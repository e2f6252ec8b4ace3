#include "compress/packed_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compress/pq_weight.h"
#include "core/config.h"
#include "core/half.h"
#include "quant/bit_packing.h"

namespace qn {
namespace {

constexpr const char* kFormat = "quantnoise-packed";
constexpr const char* kVersion = "1";

std::string base_name(const std::string& weight_name) {
  const std::string centroids = centroid_name(weight_name);
  return centroids.substr(0, centroids.size() - std::strlen("centroids"));  // keeps the dot
}

/// Scale of int8 values: at most 12 significant bits, so that 127 * scale is exact and storing twice changes nothing.
float int8_scale(std::span<const float> values) {
  float largest = 0.0f;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  if (largest == 0.0f) return 1.0f;
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(largest) / 127.0, &exponent);
  return static_cast<float>(std::ldexp(std::ceil(mantissa * 4096.0 - 1e-6) / 4096.0, exponent));
}

int8_t to_int8(float value, float scale) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f));
}

void add_values(SafetensorsWriter& writer, const std::string& name, const Shape& shape, std::span<const float> values,
                ValueStorage storage) {
  if (storage == ValueStorage::f32) {
    writer.add(name, StoredType::f32, shape.to_vector(), std::as_bytes(values));
  } else if (storage == ValueStorage::f16) {
    std::vector<uint16_t> halves(values.size());
    std::transform(values.begin(), values.end(), halves.begin(), float_to_half);
    writer.add(name, StoredType::f16, shape.to_vector(), halves);
  } else {
    const float scale = int8_scale(values);
    std::vector<int8_t> small(values.size());
    std::transform(values.begin(), values.end(), small.begin(), [&](float v) { return to_int8(v, scale); });
    writer.add(name, StoredType::i8, shape.to_vector(), small);
    writer.add(name + "_scale", StoredType::f32, {1}, std::vector<float>{scale});
  }
}

std::vector<float> read_values(const SafetensorsReader& file, const std::string& name) {
  const StoredTensor& t = file.at(name);
  if (t.type == StoredType::f32) return file.values<float>(name, StoredType::f32);
  std::vector<float> values;
  if (t.type == StoredType::f16) {
    for (const uint16_t h : file.values<uint16_t>(name, StoredType::f16)) values.push_back(half_to_float(h));
    return values;
  }
  QN_CHECK(t.type == StoredType::i8, "tensor {} is {}: a packed model holds F32, F16 or I8 values", name,
           name_of(t.type));
  const std::vector<float> scale = file.values<float>(name + "_scale", StoredType::f32);
  QN_CHECK(scale.size() == 1, "tensor {}_scale must hold one number", name);
  for (const int8_t v : file.values<int8_t>(name, StoredType::i8)) values.push_back(static_cast<float>(v) * scale[0]);
  return values;
}

/// Codes of 8 bits keep the shape [cols / d, rows]; other widths are a plain byte string.
std::vector<int64_t> code_shape(const PqShape& s) {
  const int bits = bits_per_code(s.n_centroids);
  const int64_t blocks_per_row = s.cols / s.block_size;
  if (bits == 8) return {blocks_per_row, s.rows};
  return {packed_bytes(s.rows * blocks_per_row, bits)};
}

void add_table(SafetensorsWriter& writer, const std::string& weight_name, const PqTable& table,
               ValueStorage centroids) {
  const std::string base = base_name(weight_name);
  writer.add(base + "codes", StoredType::u8, code_shape({table.rows, table.cols, table.block_size, table.n_centroids}),
             pack_codes(table.codes, bits_per_code(table.n_centroids)));
  add_values(writer, base + "centroids", {table.n_centroids, table.block_size}, table.centroids, centroids);
}

void set_metadata(SafetensorsWriter& writer, const PackedInfo& info) {
  writer.set_metadata("format", kFormat);
  writer.set_metadata("version", kVersion);
  writer.set_metadata("model", dump_config(info.model));
  writer.set_metadata("vocabulary", std::to_string(info.vocabulary));
  writer.set_metadata("dictionary_hash", info.dictionary_hash);
  writer.set_metadata("tokens_per_sample", std::to_string(info.tokens_per_sample));
  writer.set_metadata("parameters", std::to_string(info.parameters));
  writer.set_metadata("centroid_gradient", name_of(info.centroid_gradient));
}

bool is_centroids(const Parameter& p) { return p.name.ends_with(".centroids"); }

void add_dense_parameters(SafetensorsWriter& writer, const Module& model, ValueStorage storage) {
  for (const auto& p : model.parameters().all())
    if (!is_centroids(*p))
      add_values(writer, p->name, p->shape, HostView(model.parameters().kernels(), p->value).span<float>(), storage);
}

int64_t parse_integer(const SafetensorsReader& file, const std::string& key) {
  const std::string& text = file.metadata_at(key);
  try {
    return std::stoll(text);
  } catch (const std::exception&) {
    fail("metadata '{}' is '{}', not a number: this is no intact packed model", key, text);
  }
}

PackedInfo read_info(const SafetensorsReader& file, const std::string& path) {
  const auto format = file.metadata().find("format");
  QN_CHECK(format != file.metadata().end() && format->second == kFormat,
           "{} is a safetensors file, but no packed model of quantnoise (metadata 'format' is missing or different)",
           path);
  QN_CHECK(file.metadata_at("version") == kVersion,
           "{} has format version {}, this program reads version {}: use a newer quantnoise", path,
           file.metadata_at("version"), kVersion);
  PackedInfo info;
  info.model = read_config<ModelConfig>(config_tree_from_text(file.metadata_at("model"), path + " (metadata 'model')"));
  info.vocabulary = parse_integer(file, "vocabulary");
  info.dictionary_hash = file.metadata_at("dictionary_hash");
  info.tokens_per_sample = parse_integer(file, "tokens_per_sample");
  info.parameters = parse_integer(file, "parameters");
  info.centroid_gradient =
      value_named<CentroidGradient>(file.metadata_at("centroid_gradient"), path + ": metadata 'centroid_gradient'");
  return info;
}

PqTable read_table(const SafetensorsReader& file, const Weight& weight) {
  const std::string base = base_name(weight.name());
  const StoredTensor& centroids = file.at(base + "centroids");
  QN_CHECK(centroids.shape.size() == 2, "{}centroids must be a matrix [K, d]", base);
  PqTable table{.rows = weight.rows(),
                .cols = weight.cols(),
                .block_size = centroids.shape[1],
                .n_centroids = centroids.shape[0],
                .centroids = read_values(file, base + "centroids"),
                .codes = {},
                .counts = {}};
  QN_CHECK(table.block_size > 0 && table.cols % table.block_size == 0 && table.n_centroids >= 1 &&
               table.n_centroids <= 65536,
           "{}centroids is {} x {}, which does not fit a weight of {} columns", base, table.n_centroids,
           table.block_size, table.cols);
  table.codes.resize(static_cast<size_t>(table.blocks()));
  unpack_codes(file.values<uint8_t>(base + "codes", StoredType::u8), bits_per_code(table.n_centroids), table.codes);
  return table;
}

/// Brings the freshly built model to the structure of the file: ties cut, codes in place of dense weights.
void restructure(Module& model, const SafetensorsReader& file, CentroidGradient gradient) {
  std::vector<Weight*> coded;
  for (const auto& w : model.weights().all())
    if (file.contains(base_name(w->name()) + "codes")) coded.push_back(w.get());
  RepresentationSwap swap(model, gradient);
  for (Weight* weight : coded) {
    const std::vector<std::string> aliases = model.weights().aliases_of(weight);
    if (std::any_of(aliases.begin(), aliases.end(), [&](const auto& name) { return file.contains(name); }))
      model.weights().untie(model.parameters(), weight);
    swap.replace(*weight, read_table(file, *weight));
  }
  swap.finish();
}

template <typename F>
void for_each_stored(const PackedStorage& storage, Module& model, F&& f) {
  for (const auto& p : model.parameters().all())
    edit_on_host(model.parameters().kernels(), p->value, [&](const Tensor& host) {
      f(host.span<float>(), is_centroids(*p) ? storage.centroids : storage.dense);
    });
}

}  // namespace

void round_to_storage(Module& model, const PackedStorage& storage) {
  for_each_stored(storage, model, [](std::span<float> values, ValueStorage how) {
    if (how == ValueStorage::f16)
      for (float& v : values) v = half_to_float(float_to_half(v));
    if (how == ValueStorage::int8) {
      const float scale = int8_scale(values);
      for (float& v : values) v = static_cast<float>(to_int8(v, scale)) * scale;
    }
  });
}

uint64_t write_packed_model(const std::filesystem::path& path, const Module& model, const PackedInfo& info,
                            const PackedStorage& storage) {
  SafetensorsWriter writer;
  set_metadata(writer, info);
  for (const auto& w : model.weights().all())
    if (const PqRepresentation* source = pq_representation(*w))
      add_table(writer, w->name(), source->current_table(model.parameters()), storage.centroids);
  add_dense_parameters(writer, model, storage.dense);
  writer.write(path);
  return writer.file_size();
}

PackedModel load_packed_model(const std::filesystem::path& path, const Kernels& kernels) {
  const SafetensorsReader file(path);
  PackedModel packed;
  packed.info = read_info(file, path.string());
  packed.model = make_language_model(packed.info.model, packed.info.vocabulary, packed.info.tokens_per_sample);
  packed.model->parameters().allocate(DType::f32, kernels);
  restructure(*packed.model, file, packed.info.centroid_gradient);
  for (const auto& p : packed.model->parameters().all()) {
    if (is_centroids(*p)) continue;
    QN_CHECK(file.at(p->name).shape == p->shape.to_vector(),
             "{}: tensor {} does not have the shape {} that the model needs", path.string(), p->name,
             p->shape.to_string());
    const std::vector<float> values = read_values(file, p->name);
    upload(kernels, p->value, view_of(values.data(), p->shape));
  }
  return packed;
}

SizeReport packed_sizes(const SafetensorsReader& file) {
  SizeReport report;
  report.set_header_bytes(file.header_bytes());
  report.set_original_values(parse_integer(file, "parameters"));
  const auto storage_of = [](StoredType type) {
    return type == StoredType::f32  ? ValueStorage::f32
           : type == StoredType::i8 ? ValueStorage::int8
                                    : ValueStorage::f16;
  };
  static const std::string kCodes = ".codes", kCentroids = ".centroids", kScale = ".centroids_scale";
  for (const StoredTensor& t : file.tensors()) {
    if (t.name.ends_with(kCentroids) || t.name.ends_with(kScale)) continue;
    if (!t.name.ends_with(kCodes)) {
      report.add_dense(t.name, t.elements(), storage_of(t.type));
      continue;
    }
    const std::string base = t.name.substr(0, t.name.size() - kCodes.size());
    const StoredTensor& centroids = file.at(base + kCentroids);
    const int bits = bits_per_code(centroids.shape.at(0));
    const int64_t blocks = static_cast<int64_t>(t.bytes.size()) * 8 / bits;
    report.add_quantized(
        base,
        {t.shape.size() == 2 ? t.shape[1] : 1, (t.shape.size() == 2 ? t.shape[0] : blocks) * centroids.shape.at(1),
         centroids.shape.at(1), centroids.shape.at(0)},
        storage_of(centroids.type));
  }
  return report;
}

SizeReport predict_packed_sizes(const Module& model, const QuantizePlan& plan, bool dense_softmax,
                                const PackedInfo& info, const PackedStorage& storage) {
  SizeReport report;
  SafetensorsWriter writer;  // filled with zeros: only the header's size is wanted
  set_metadata(writer, info);
  const auto add_dense = [&](const std::string& name, const Shape& shape) {
    report.add_dense(name, shape.elements(), storage.dense);
    add_values(writer, name, shape, std::vector<float>(static_cast<size_t>(shape.elements())), storage.dense);
  };
  const std::vector<PlannedWeight> planned = plan.all();
  for (const PlannedWeight& p : planned) {
    report.add_quantized(base_name(p.name).substr(0, base_name(p.name).size() - 1), p.shape(), storage.centroids);
    PqTable table{.rows = p.rows,
                  .cols = p.cols,
                  .block_size = p.block_size,
                  .n_centroids = p.n_centroids,
                  .centroids = std::vector<float>(static_cast<size_t>(p.n_centroids * p.block_size)),
                  .codes = {},
                  .counts = {}};
    table.codes.resize(static_cast<size_t>(table.blocks()));
    add_table(writer, p.name, table, storage.centroids);
    const Weight* weight = model.weights().find(p.name);
    if (dense_softmax)
      for (const std::string& alias : model.weights().aliases_of(weight)) add_dense(alias, {p.rows, p.cols});
  }
  for (const auto& p : model.parameters().all())
    if (std::none_of(planned.begin(), planned.end(), [&](const PlannedWeight& w) { return w.name == p->name; }))
      add_dense(p->name, p->shape);
  report.set_header_bytes(writer.header_bytes());
  report.set_original_values(info.parameters);
  return report;
}

}  // namespace qn
