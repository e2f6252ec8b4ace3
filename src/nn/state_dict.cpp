#include "nn/state_dict.h"

#include <cstring>

#include "core/error.h"
#include "core/finite.h"
#include "core/text.h"
#include "ops/host_access.h"

namespace qn {
namespace {

template <typename Value>
const Value& find(const std::map<std::string, Value>& entries, const std::string& name, const char* kind) {
  const auto found = entries.find(name);
  if (found != entries.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.first);
  const std::vector<std::string> near = nearest(name, names);
  fail("the checkpoint holds no {} '{}'{}: was it written by a run with another configuration?", kind, name,
       near.empty() ? "" : fmt::format(" (nearest: '{}')", near[0]));
}

/// Where the state of a weight's representation is.
std::string state_name(const Weight& weight) { return "representations/" + weight.name(); }

}  // namespace

OwnedTensor copy_of(const Tensor& tensor) {
  QN_ASSERT(tensor.defined(), "copy of an undefined tensor");
  OwnedTensor copy(tensor.shape, tensor.dtype);
  std::memcpy(copy.view().data, tensor.data, tensor.bytes());
  return copy;
}

const Tensor& StateDict::tensor(const std::string& name) const { return find(tensors, name, "tensor").view(); }
const std::string& StateDict::text(const std::string& name) const { return find(texts, name, "text"); }
int64_t StateDict::integer(const std::string& name) const { return find(ints, name, "integer"); }
double StateDict::real(const std::string& name) const { return find(floats, name, "number"); }

void StateDict::keep(const std::string& name, const Kernels& kernels, const Tensor& from) {
  constexpr size_t kWorthWaiting = size_t{4} << 10;
  if (late == nullptr || !on_host(kernels) || from.bytes() < kWorthWaiting) {
    tensors[name] = download(kernels, from);
    return;
  }
  OwnedTensor to(from.shape, from.dtype, *kernels.transfer);
  late->push_back({to.view(), from});
  tensors[name] = std::move(to);
}

void save_module(const Module& module, StateDict& state) {
  const Kernels& kernels = module.parameters().kernels();
  for (const auto& p : module.parameters().all()) state.keep(kParameters + p->name, kernels, p->value);
  for (const auto& b : module.buffers().all()) state.tensors["buffers/" + b->name] = download(kernels, b->value.view());
  for (const auto& w : module.weights().all())
    if (const std::vector<float> own = w->representation().state(); !own.empty())
      state.tensors[state_name(*w)] = copy_of(view_of(own.data(), {std::ssize(own)}));
}

void load_module(Module& module, const StateDict& state) {
  const auto load = [&](const std::string& kind, const std::string& name, const Tensor& to) {
    const Tensor& from = state.tensor(kind + name);
    QN_CHECK(from.shape == to.shape && from.dtype == to.dtype,
             "{} is {} in the checkpoint, but {} in this model: the section `model` of the config differs from the "
             "checkpoint's",
             name, from.shape.to_string(), to.shape.to_string());
    const std::string found = describe_non_finite(from);
    QN_CHECK(found.empty(),
             "{} is not finite in the checkpoint ({}): the run that wrote it had diverged; use an earlier checkpoint",
             name, found);
    upload(module.parameters().kernels(), to, from);
  };
  for (const auto& p : module.parameters().all()) load(kParameters, p->name, p->value);
  for (const auto& b : module.buffers().all())  // a run without this buffer leaves it as it starts
    for (const std::string& name : {b->name, b->former})
      if (state.tensors.contains("buffers/" + name)) {
        load("buffers/", name, b->value.view());
        break;
      }
  for (const auto& w : module.weights().all())
    if (const auto own = state.tensors.find(state_name(*w)); own != state.tensors.end())
      w->representation().set_state(own->second.view().span<float>());
  module.refresh();
}

}  // namespace qn
