#include "compress/foreign_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>

#include "compress/ipq.h"
#include "core/error.h"
#include "core/half.h"
#include "core/log.h"
#include "core/stored_values.h"
#include "core/text.h"
#include "ops/host_access.h"

namespace qn {
namespace {

constexpr std::string_view kWeightEnding = ".weight";

std::string without_ending(const std::string& name) {
  return name.ends_with(kWeightEnding) ? name.substr(0, name.size() - kWeightEnding.size()) : name;
}

WeightKind kind_of(const StoredTensor& tensor) {
  if (tensor.shape.size() == 4) return WeightKind::conv;
  const std::string module = without_ending(tensor.name);
  const std::string last = module.substr(module.rfind('.') + 1);  // all of it where there is no dot
  const auto has = [&](const char* text) { return last.find(text) != std::string::npos; };
  return has("embed") || has("wte") || has("wpe") ? WeightKind::embedding : WeightKind::linear;
}

WeightInfo info_of(const StoredTensor& tensor) {
  WeightInfo info{.name = tensor.name,
                  .kind = kind_of(tensor),
                  .rows = tensor.shape[0],
                  .cols = tensor.elements() / tensor.shape[0]};
  if (info.kind == WeightKind::conv) info.attributes["kernel_size"] = kernel_text(tensor.shape[2], tensor.shape[3]);
  return info;
}

bool is_matrix(const StoredTensor& tensor) {
  return is_weight_type(tensor.type) && tensor.shape.size() >= 2 && tensor.elements() > 0;
}

bool same_values(const StoredTensor& a, const StoredTensor& b) {
  return a.type == b.type && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

/// The matrices by name; those with the values of an earlier one are its aliases.
std::vector<WeightInfo> matrices_of(const TensorFiles& files) {
  std::vector<WeightInfo> infos;
  std::multimap<uint64_t, std::pair<const StoredTensor*, size_t>> known;
  for (const auto& [name, tensor] : files.tensors()) {
    if (!is_matrix(*tensor)) continue;
    const uint64_t hash = hash_bytes(tensor->bytes.data(), tensor->bytes.size());
    const auto [begin, end] = known.equal_range(hash);
    const auto same =
        std::find_if(begin, end, [&, t = tensor](const auto& k) { return same_values(*k.second.first, *t); });
    if (same != end) {
      WeightInfo& first = infos[same->second.second];
      spdlog::info("'{}' and '{}' have the same values: one weight", first.name, name);
      first.aliases.push_back(name);
      continue;
    }
    known.emplace(hash, std::pair(tensor, infos.size()));
    infos.push_back(info_of(*tensor));
  }
  return infos;
}

/// A name for a quantized weight such that no tensor of the packed file meets one in `taken`; they are taken then.
std::string free_name(const std::string& original, const PackedWeight& packed, std::set<std::string>& taken) {
  for (std::string stem = without_ending(original);; stem += '_') {
    const std::string name = stem + std::string(kWeightEnding);
    std::vector<std::string> tensors = tensor_names(name, packed);
    if (name != original) tensors.push_back(name);
    if (std::any_of(tensors.begin(), tensors.end(), [&](const std::string& t) { return taken.contains(t); })) continue;
    taken.insert(tensors.begin(), tensors.end());
    return name;
  }
}

void check_finite(const StoredTensor& tensor, const std::string& where, float largest) {
  const std::vector<float> values = floats_of(tensor);
  for (size_t i = 0; i < values.size(); ++i) {
    QN_CHECK(std::isfinite(values[i]),
             "{}: tensor '{}' holds {} at element {}: values to quantize must be finite; repair the file or leave this "
             "tensor out of the rules",
             where, tensor.name, values[i], i);
    QN_CHECK(std::abs(values[i]) <= largest,
             "{}: tensor '{}' holds {} at element {}, too large for centroids in fp16: keep them in fp32", where,
             tensor.name, values[i], i);
  }
}

}  // namespace

ForeignWeights::ForeignWeights(const TensorFiles& files, const ForeignRules& rules, const ForeignOptions& options)
    : files_(files), options_(options), origin_{.metadata = files.metadata(), .weights = {}, .bytes = files.bytes()} {
  QN_CHECK(!files.metadata().contains(kQuantizedKey),
           "{} is packed already; `quantnoise export` makes a plain file of it", files.path().string());
  const std::vector<WeightInfo> infos = matrices_of(files);
  const QuantizationPlan all = plan_foreign(rules, infos);
  plan_.stages = all.stages;
  plan_.storage = {.side = options.centroids, .dense = ValueStorage::f32};
  std::set<std::string> taken;
  for (const auto& [name, tensor] : files.tensors()) taken.insert(name);
  for (size_t i = 0; i < infos.size(); ++i)
    if (all.weights[i].stage >= 0) add(all.weights[i], infos[i], taken);
  std::set<std::string> quantized;
  for (const auto& [name, weight] : origin_.weights) quantized.insert(weight.names.begin(), weight.names.end());
  for (const auto& [name, tensor] : files.tensors())
    if (!quantized.contains(name)) raw_.push_back(*tensor);
  check_values();
}

void ForeignWeights::add(WeightPlan planned, const WeightInfo& info, std::set<std::string>& taken) {
  const StoredTensor& tensor = *files_.tensors().at(info.name);
  planned.name = free_name(info.name, {planned.quantizer, planned.rows, planned.cols}, taken);
  OriginWeight& weight = origin_.weights[planned.name];
  weight = {.names = {info.name}, .type = tensor.type, .shape = tensor.shape};
  weight.names.insert(weight.names.end(), info.aliases.begin(), info.aliases.end());
  module_.root().weight(planned.name, "", info.kind, {planned.rows, planned.cols}, {});
  plan_.weights.push_back(std::move(planned));
}

void ForeignWeights::check_values() const {
  for (const WeightPlan& planned : plan_.weights) {
    const bool halves = planned.quantizer->kmeans() && options_.centroids == ValueStorage::f16;
    check_finite(*files_.tensors().at(origin_.weights.at(planned.name).names.front()), files_.path().string(),
                 halves ? kLargestHalf : std::numeric_limits<float>::max());
  }
}

PackedMetadata ForeignWeights::metadata() const {
  int64_t values = 0;
  for (const auto& [name, tensor] : files_.tensors()) values += tensor->elements();
  return {{kOriginKey, origin_to_text(origin_)}, {"plan", plan_to_text(plan_)}, {"parameters", std::to_string(values)}};
}

SizeReport ForeignWeights::predicted_sizes() const { return predict_packed_sizes(module_, plan_, metadata(), raw_); }

void ForeignWeights::load_values(const Kernels& kernels) {
  module_.allocate(DType::f32, kernels);
  for (const auto& weight : module_.weights().all()) {
    const std::vector<float> values = floats_of(*files_.tensors().at(origin_.weights.at(weight->name()).names.front()));
    upload(kernels, weight->dense()->value, view_of(values.data(), weight->shape()));
  }
}

void ForeignWeights::quantize(const std::filesystem::path& out, Communicator& comm, const Kernels& kernels) {
  load_values(kernels);
  IpqConfig config;
  config.kmeans_iterations = options_.kmeans_iterations;
  IpqMachine machine(config, module_, comm, options_.seed, plan_);
  while (machine.stages_done() < machine.stages()) {
    const StageReport report = machine.run_stage([](int64_t) { return true; }).value();
    spdlog::info("stage {} of {}: {} weights, relative error {:.4f}, {:.1f} s", report.stage + 1, machine.stages(),
                 report.weights, report.relative_error, report.seconds);
  }
  round_to_storage(module_, plan_.storage);
  if (comm.is_root()) write_packed(out, module_, metadata(), plan_.storage, raw_);
  comm.barrier();
}

std::unique_ptr<Module> load_foreign(const SafetensorsReader& file, const std::string& path) {
  check_packed_format(file, path);
  auto module = std::make_unique<Module>();
  const PackedWeights quantized = packed_weights(file, nullptr);
  RepresentationSwap swap(*module, CentroidGradient::sum);
  for (const auto& [name, packed] : quantized) {
    Weight* weight = module->root().weight(name, "", WeightKind::linear, {packed.rows, packed.cols}, {});
    swap.replace(*weight, read_quantized(file, name, packed));
  }
  swap.finish();
  return module;
}

std::map<std::string, double> relative_errors(const SafetensorsReader& file, const std::string& path,
                                              const TensorFiles& files) {
  const std::optional<PackedOrigin> origin = packed_origin(file, path);
  QN_CHECK(origin.has_value(), "{} was not made from another program's file", path);
  std::map<std::string, double> errors;
  for (const auto& [name, packed] : packed_weights(file, nullptr)) {
    const std::string& original = origin->weights.at(name).names.front();
    const std::vector<float> values = floats_of(*files.tensors().at(original));
    std::vector<float> decoded(values.size());
    const QuantizedTensor tensor = read_quantized(file, name, packed);
    check_tensor(tensor, name);
    packed.quantizer->decode(tensor, decoded.data());
    double error = 0.0, norm = 0.0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double value = values[i], difference = static_cast<double>(decoded[i]) - value;
      error += difference * difference;
      norm += value * value;
    }
    errors[original] = norm > 0.0 ? std::sqrt(error / norm) : 0.0;
  }
  return errors;
}

}  // namespace qn
