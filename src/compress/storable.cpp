#include "compress/storable.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "compress/representation.h"
#include "core/finite.h"
#include "ops/host_access.h"

namespace qn {
namespace {

constexpr const char* kDenseRemedy = "keep what is not quantized in fp32 (ipq.dense: fp32)";
constexpr const char* kSideRemedy = "store centroids as int8, which have a scale (ipq.centroids: int8)";

/// What is added to all keys alike adds the same to all scores of a query, which softmax takes away again: its gradient
/// is zero but for rounding, and so is what training makes of it.
bool is_without_effect(const std::string& name) { return name.ends_with("k_proj.bias"); }

/// Tensors whose values are so small that they become zeros, by what they are stored as and what helps: told in one
/// warning each.
using Vanishing = std::map<std::pair<ValueStorage, std::string>, std::vector<std::string>>;

void warn_of(const Vanishing& vanishing) {
  constexpr size_t kMost = 3;
  for (const auto& [how, names] : vanishing)
    spdlog::warn("{}{}: all values are so small that {} makes zeros of them; {}",
                 fmt::join(std::span(names).first(std::min(names.size(), kMost)), ", "),
                 names.size() > kMost ? fmt::format(" and {} more", names.size() - kMost) : "", name_of(how.first),
                 how.second);
}

void check_values(const std::string& name, std::span<const float> values, ValueStorage storage, const char* remedy,
                  Vanishing& vanishing) {
  const std::string reason = not_storable(values, storage);
  const bool finite = first_non_finite(view_of(values.data(), {std::ssize(values)})) < 0;
  QN_CHECK(finite, "{} is not finite ({}): the model has diverged and cannot be packed", name, reason);
  QN_CHECK(reason.empty(), "{} cannot be stored as {}: {}; {}", name, name_of(storage), reason, remedy);
  if (!is_without_effect(name) && underflow(values, storage)) vanishing[{storage, remedy}].push_back(name);
}

void check_parameter(const Module& module, const Parameter& p, ValueStorage storage, const char* remedy,
                     Vanishing& vanishing) {
  const HostView view(module.parameters().kernels(), p.value);
  check_values(p.name, view.span<float>(), storage, remedy, vanishing);
}

}  // namespace

void check_storable(const Module& module, const PackedStorage& storage) {
  std::set<const Parameter*> parts;
  Vanishing vanishing;
  for (const auto& weight : module.weights().all()) {
    const QuantizedTensor* codes = weight->representation().quantized();
    if (codes == nullptr) continue;
    for (const WeightPart& part : weight->parts()) parts.insert(part.parameter);
    const auto tensor = quantized_tensor(*weight, module.parameters());
    const QuantizedLayout layout = tensor->quantizer->layout(tensor->rows, tensor->cols);
    for (size_t i = 0; i < layout.side.size(); ++i)
      check_values(part_name(weight->name(), layout.side[i].name), tensor->values[i].values,
                   layout.side[i].stored(storage.side), kSideRemedy, vanishing);
  }
  for (const auto& p : module.parameters().all())
    if (!parts.contains(p.get())) check_parameter(module, *p, storage.dense, kDenseRemedy, vanishing);
  for (const auto& b : module.buffers().all()) {
    const HostView view(module.parameters().kernels(), b->value.view());
    check_values(b->name, view.span<float>(), ValueStorage::f32, kDenseRemedy, vanishing);
  }
  warn_of(vanishing);
}

void check_storable(const Module& module, const QuantizationPlan& plan) {
  Vanishing vanishing;
  for (const auto& p : module.parameters().all()) {
    const WeightPlan* planned = plan.find(p->name);
    const bool dense = planned == nullptr || planned->stage < 0;
    check_parameter(module, *p, dense ? plan.storage.dense : ValueStorage::f32, kDenseRemedy, vanishing);
  }
  warn_of(vanishing);
}

}  // namespace qn
