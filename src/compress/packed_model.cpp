#include "compress/packed_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "compress/coded_representation.h"
#include "compress/packed_origin.h"
#include "compress/packed_tensors.h"
#include "compress/representation.h"
#include "compress/storable.h"
#include "core/finite.h"
#include "ops/host_access.h"

namespace qn {
namespace {

constexpr const char* kFormat = "quantnoise-packed";
constexpr const char* kVersion6 = "6";  // with folded norms
constexpr const char* kVersion5 = "5";  // with scales of rows
constexpr const char* kVersion4 = "4";  // with parts that are shared
constexpr const char* kVersion3 = "3";
constexpr const char* kVersion2 = "2";  // without checksums

bool has_row_scales(const Quantizer& quantizer) {
  const auto kmeans = quantizer.kmeans();
  return kmeans && kmeans->row_scales;
}

bool has_row_scales(const Module& module) {
  const auto& weights = module.weights().all();
  return std::any_of(weights.begin(), weights.end(), [](const auto& weight) {
    const QuantizedTensor* codes = weight->representation().quantized();
    return codes != nullptr && has_row_scales(*codes->quantizer);
  });
}

bool folds(const Module& module, const PackedStorage& storage) {
  return storage.norms == NormStorage::fold && !module.statistics().empty();
}

/// Whether a file holds this buffer; the others are as they start.
bool is_stored(const Module& module, const ModuleBuffer& buffer, bool folded) {
  return !folded || !module.statistics().owns(&buffer);
}

bool is_folded(const SafetensorsReader& file) { return file.metadata_at("version") == kVersion6; }

/// The oldest version whose readers understand the file.
const char* version_of(const Module& module, bool row_scales, bool folded) {
  return folded ? kVersion6 : row_scales ? kVersion5 : module.shared().empty() ? kVersion3 : kVersion4;
}

void set_metadata(PackedTensors& tensors, const PackedMetadata& metadata, const char* version) {
  for (const auto& [key, value] : metadata) {
    QN_ASSERT(key != "format" && key != "version" && key != kQuantizedKey, "{}", key);
    tensors.set_metadata(key, value);
  }
  tensors.set_metadata("format", kFormat);
  tensors.set_metadata("version", version);
}

/// Whether a parameter is stored with the codes of a weight.
bool is_part(const Module& module, const Parameter* parameter) {
  const auto owns = [&](const auto& weight) {
    return std::any_of(weight->parts().begin(), weight->parts().end(),
                       [&](const WeightPart& part) { return part.parameter == parameter; });
  };
  return std::any_of(module.weights().all().begin(), module.weights().all().end(), owns);
}

ValueStorage storage_of_part(const Weight& weight, const std::string& role, const PackedStorage& storage) {
  const QuantizedTensor& tensor = *weight.representation().quantized();
  for (const SideLayout& side : tensor.quantizer->layout(tensor.rows, tensor.cols).side)
    if (side.name == role) return side.stored(storage.side);
  QN_ASSERT(role == kLatent, "{} has no {}", weight.name(), role);
  return ValueStorage::f32;  // it is not stored at all
}

std::vector<float> floats_of(const Kernels& kernels, const Tensor& tensor) {
  const HostView view(kernels, tensor);
  return {view.span<float>().begin(), view.span<float>().end()};
}

/// Ties are cut where the file has a matrix of its own for a second use.
void cut_ties(Module& module, const PackedWeights& quantized, const SafetensorsReader& file) {
  std::vector<Weight*> weights;
  for (const auto& w : module.weights().all()) weights.push_back(w.get());
  for (Weight* weight : weights) {
    const std::vector<std::string> aliases = module.weights().aliases_of(weight);
    if (std::any_of(aliases.begin(), aliases.end(),
                    [&](const std::string& name) { return file.contains(name) || quantized.contains(name); }))
      module.weights().untie(module.parameters(), weight);
  }
}

void check_finite(const std::string& path, const std::string& name, std::span<const float> values) {
  const std::string found = describe_non_finite(view_of(values.data(), {std::ssize(values)}));
  QN_CHECK(found.empty(), "{}: {} is not finite ({}): this model is of no use", path, name, found);
}

/// The weight stays codes, if its quantizer allows that.
bool keep_codes(Module& module, Weight& weight, const PackedWeight& packed, const SafetensorsReader& file,
                const Kernels& kernels) {
  QN_CHECK(packed.rows == weight.rows() && packed.cols == weight.cols(), "{} is {} x {}, its codes are for {} x {}",
           weight.name(), weight.rows(), weight.cols(), packed.rows, packed.cols);
  auto coded = read_coded(file, weight.name(), packed, kernels);
  if (coded == nullptr) return false;
  module.parameters().remove(weight.dense());
  weight.set_representation(std::move(coded), nullptr);
  for (const std::string& name : tensor_names(weight.name(), packed))
    if (file.contains(name)) file.release(file.at(name));
  return true;
}

/// `codes`: kernels that weights may stay codes for, or null.
void represent(Module& module, const PackedWeights& quantized, const SafetensorsReader& file, const std::string& path,
               CentroidGradient gradient, const Kernels* codes) {
  for (const auto& [name, packed] : quantized)
    QN_CHECK(module.weights().find(name) != nullptr, "{} has codes for '{}', a weight that its model does not have",
             path, name);
  RepresentationSwap swap(module, gradient);
  for (const auto& weight : module.weights().all()) {  // in the module's order: it is that of the store
    const auto packed = quantized.find(weight->name());
    if (packed == quantized.end()) continue;
    for (const SideValues& side : read_side_values(file, weight->name(), packed->second).values)
      check_finite(path, part_name(weight->name(), side.name), side.values);
    if (codes != nullptr && keep_codes(module, *weight, packed->second, file, *codes)) continue;
    QuantizedTensor tensor = read_quantized(file, weight->name(), packed->second);
    swap.replace(*weight, std::move(tensor));
  }
  swap.finish();
}

void read_into(const SafetensorsReader& file, const std::string& path, const std::string& name, const Kernels& kernels,
               const Tensor& tensor) {
  QN_CHECK(file.at(name).shape == tensor.shape.to_vector(),
           "{}: tensor {} does not have the shape {} that the model needs", path, name, tensor.shape.to_string());
  const std::vector<float> values = read_values(file, name);
  check_finite(path, name, values);
  upload(kernels, tensor, view_of(values.data(), tensor.shape));
}

bool is_as_it_starts(const Kernels& kernels, const ModuleBuffer& buffer) {
  const std::vector<float> values = floats_of(kernels, buffer.value.view());
  return std::all_of(values.begin(), values.end(), [&](float v) { return v == static_cast<float>(buffer.start); });
}

/// A tensor that a file holds as it is.
void add_stored(const StoredTensor& tensor, const PackedMetadata& metadata, SizeReport& report) {
  if (is_vocabulary(tensor.name, metadata)) return report.add_vocabulary_bytes(tensor.bytes.size());
  const bool plain = tensor.type == StoredType::f32 || tensor.type == StoredType::f16;
  report.add_stored(tensor.name, plain ? name_of(stored_as(tensor.type)) : name_of(tensor.type), tensor.elements(),
                    tensor.bytes.size());
}

}  // namespace

void round_to_storage(Module& module, const PackedStorage& storage, const std::function<void()>& codes_rounded) {
  check_storable(module, storage);
  const Kernels& kernels = module.parameters().kernels();
  const auto round = [&](const Parameter& p, ValueStorage how) {
    edit_on_host(kernels, p.value, [&](const Tensor& host) { round_to_storage(host.span<float>(), how); });
  };
  for (const auto& weight : module.weights().all()) {
    for (const WeightPart& part : weight->parts()) round(*part.parameter, storage_of_part(*weight, part.role, storage));
    round_side_values(*weight, storage.side);
  }
  if (codes_rounded) codes_rounded();
  if (storage.norms == NormStorage::fold) {
    module.statistics().fold(kernels);
    module.refresh();
    check_storable(module, storage);
  }
  for (const auto& p : module.parameters().all())
    if (!is_part(module, p.get())) round(*p, storage.dense);
}

uint64_t write_packed(const std::filesystem::path& path, const Module& module, const PackedMetadata& metadata,
                      const PackedStorage& storage, std::span<const StoredTensor> raw) {
  check_storable(module, storage);
  const Kernels& kernels = module.parameters().kernels();
  PackedTensors tensors;
  const bool folded = folds(module, storage);
  set_metadata(tensors, metadata, version_of(module, has_row_scales(module), folded));
  for (const auto& w : module.weights().all())
    if (const auto tensor = quantized_tensor(*w, module.parameters()))
      tensors.add_quantized(w->name(), *tensor, storage.side);
  for (const auto& p : module.parameters().all())
    if (!is_part(module, p.get())) tensors.add_values(p->name, p->shape, floats_of(kernels, p->value), storage.dense);
  for (const auto& b : module.buffers().all())
    if (is_stored(module, *b, folded))
      tensors.add_values(b->name, b->shape, floats_of(kernels, b->value.view()), ValueStorage::f32);
    else
      QN_ASSERT(is_as_it_starts(kernels, *b), "{} is not folded", b->name);
  for (const StoredTensor& t : raw) tensors.add_raw(t);
  return tensors.write(path);
}

bool is_vocabulary(const std::string& tensor, const std::map<std::string, std::string>& metadata) {
  return tensor.starts_with(kVocabularyPrefix) && !metadata.contains(kOriginKey);
}

void check_packed_format(const SafetensorsReader& file, const std::string& path) {
  const auto format = file.metadata().find("format");
  QN_CHECK(format != file.metadata().end() && format->second == kFormat,
           "{} is a safetensors file, but no packed model of quantnoise (metadata 'format' is missing or different)",
           path);
  const std::string& version = file.metadata_at("version");
  const bool old = version == kVersion1 || version == kVersion2;
  QN_CHECK(old || version == kVersion3 || version == kVersion4 || version == kVersion5 || version == kVersion6,
           "{} has format version {}, this program reads versions {} to {}: use a newer quantnoise", path, version,
           kVersion1, kVersion6);
  QN_CHECK(old || file.has_checksums(),
           "{} has no checksums (metadata '{}'), which files of version {} must have: the file is damaged, or another "
           "program rewrote it",
           path, kChecksums, version);
  file.verify();
}

namespace {

void load_parts(Module& module, const SafetensorsReader& file, const std::string& path, CentroidGradient gradient,
                const Kernels* codes) {
  check_packed_format(file, path);
  const PackedWeights quantized = packed_weights(file, &module.weights());
  cut_ties(module, quantized, file);
  represent(module, quantized, file, path, gradient, codes);
  if (codes != nullptr) module.allocate(DType::f32, *codes, /*gradients=*/false);
  const Kernels& kernels = module.parameters().kernels();
  for (const auto& p : module.parameters().all())
    if (!is_part(module, p.get())) read_into(file, path, p->name, kernels, p->value);
  for (const auto& b : module.buffers().all())
    if (is_stored(module, *b, is_folded(file)))
      read_into(file, path, b->name, kernels, b->value.view());
    else
      kernels.fill(b->value.view(), b->start);
  module.refresh();
}

}  // namespace

void load_packed(Module& module, const SafetensorsReader& file, const std::string& path, CentroidGradient gradient) {
  load_parts(module, file, path, gradient, nullptr);
}

void load_packed(Module& module, const SafetensorsReader& file, const std::string& path, const Kernels& kernels) {
  if (!kernels.from_codes) module.allocate(DType::f32, kernels);
  load_parts(module, file, path, CentroidGradient::sum, kernels.from_codes ? &kernels : nullptr);
}

void load_packed(Module& module, const std::filesystem::path& path) {
  load_packed(module, SafetensorsReader(path), path.string(), module.parameters().kernels());
}

SizeReport packed_sizes(const SafetensorsReader& file) {
  SizeReport report;
  report.set_header_bytes(file.header_bytes());
  if (file.metadata().contains("parameters"))
    report.set_original_values(metadata_integer(file, "parameters", 1, kMostValues));
  std::vector<std::string> listed;
  for (const auto& [name, packed] : packed_weights(file, nullptr)) {
    ValueStorage side = ValueStorage::f32;
    for (const SideLayout& s : packed.quantizer->layout(packed.rows, packed.cols).side)
      if (s.roundable) side = stored_as(file.at(part_name(name, s.name)).type);
    report.add_quantized(name, *packed.quantizer, packed.rows, packed.cols, side);
    const std::vector<std::string> own = tensor_names(name, packed);
    listed.insert(listed.end(), own.begin(), own.end());
  }
  for (const StoredTensor& t : file.tensors())
    if (std::find(listed.begin(), listed.end(), t.name) == listed.end()) add_stored(t, file.metadata(), report);
  return report;
}

SizeReport predict_packed_sizes(const Module& module, const QuantizationPlan& plan, const PackedMetadata& metadata,
                                std::span<const StoredTensor> raw) {
  SizeReport report;
  PackedTensors tensors;
  const std::vector<WeightPlan> quantized = plan.quantized();
  const bool row_scales = std::any_of(quantized.begin(), quantized.end(),
                                      [](const WeightPlan& weight) { return has_row_scales(*weight.quantizer); });
  const bool folded = folds(module, plan.storage);
  set_metadata(tensors, metadata, version_of(module, row_scales, folded));
  const auto add_dense = [&](const std::string& name, const Shape& shape, ValueStorage storage) {
    report.add_dense(name, shape.elements(), storage);
    tensors.plan_values(name, shape, storage);
  };
  std::vector<WeightPlan> in_order;  // of the module, in which they are written; then those that cut ties bring
  for (const auto& weight : module.weights().all())
    if (const WeightPlan* planned = plan.find(weight->name()); planned != nullptr && planned->stage >= 0)
      in_order.push_back(*planned);
  for (const WeightPlan& planned : quantized)
    if (module.weights().find(planned.name) == nullptr) in_order.push_back(planned);
  for (const WeightPlan& planned : in_order) {
    report.add_quantized(planned.name, *planned.quantizer, planned.rows, planned.cols, plan.storage.side);
    tensors.plan_quantized(planned.name, {planned.quantizer, planned.rows, planned.cols}, plan.storage.side);
  }
  for (const WeightPlan& planned : plan.weights)
    if (!planned.tied_to.empty()) {
      const Weight* tied = module.weights().find(planned.tied_to);
      QN_ASSERT(tied != nullptr, "{}", planned.tied_to);
      add_dense(planned.name, tied->shape(), plan.storage.dense);
    }
  for (const auto& p : module.parameters().all()) {
    const WeightPlan* planned = plan.find(p->name);
    if (planned == nullptr || planned->stage < 0) add_dense(p->name, p->shape, plan.storage.dense);
  }
  for (const auto& b : module.buffers().all())
    if (is_stored(module, *b, folded)) add_dense(b->name, b->shape, ValueStorage::f32);
  for (const ActivationPlan& a : plan.activations)  // of a module whose activations are yet to be quantized
    if (module.buffers().find(range_name(a.name)) == nullptr)
      add_dense(range_name(a.name), {kRangeNumbers}, ValueStorage::f32);
  for (const StoredTensor& t : raw) {
    add_stored(t, metadata, report);
    tensors.plan_raw(t);
  }
  report.set_header_bytes(tensors.header_bytes());
  const auto parameters = metadata.find("parameters");
  if (parameters != metadata.end()) report.set_original_values(std::stoll(parameters->second));
  return report;
}

int64_t metadata_integer(const SafetensorsReader& file, const std::string& key, int64_t least, int64_t most) {
  const std::string& text = file.metadata_at(key);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  QN_CHECK(error == std::errc() && end == text.data() + text.size() && value >= least && value <= most,
           "'{}': metadata '{}' is '{}': a whole number from {} to {} is due; the file is damaged", file.path(), key,
           text, least, most);
  return value;
}

void check_fits(const Module& module, const SafetensorsReader& file) {
  const PackedWeights quantized = packed_weights(file, &module.weights());
  const auto check = [&](const std::string& name, const Shape& shape) {
    const auto packed = quantized.find(name);
    const bool codes = packed != quantized.end();  // of a matrix: a convolution's later axes are one there
    const std::vector<int64_t> stored =
        codes ? std::vector{packed->second.rows, packed->second.cols} : file.at(name).shape;
    const std::vector<int64_t> wanted = codes ? std::vector{shape[0], shape.elements() / shape[0]} : shape.to_vector();
    QN_CHECK(stored == wanted, "'{}': tensor {} has the shape [{}], its model (metadata 'model') needs {}", file.path(),
             name, fmt::join(stored, ", "), shape.to_string());
  };
  for (const auto& p : module.parameters().all()) check(p->name, p->shape);
  for (const auto& b : module.buffers().all())
    if (is_stored(module, *b, is_folded(file))) check(b->name, b->shape);
}

}  // namespace qn
