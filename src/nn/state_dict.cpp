#include "nn/state_dict.h"

#include <cstring>

#include "core/error.h"
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

void save_parameters(const ParameterStore& store, StateDict& state) {
  for (const auto& p : store.all()) state.tensors["parameters/" + p->name] = download(store.kernels(), p->value);
}

void load_parameters(ParameterStore& store, const StateDict& state) {
  for (const auto& p : store.all()) {
    const Tensor& from = state.tensor("parameters/" + p->name);
    QN_CHECK(from.shape == p->shape && from.dtype == p->value.dtype,
             "{} is {} in the checkpoint, but {} in this model: the section `model` of the config differs from the "
             "checkpoint's",
             p->name, from.shape.to_string(), p->shape.to_string());
    upload(store.kernels(), p->value, from);
  }
}

void save_buffers(const BufferStore& store, const Kernels& kernels, StateDict& state) {
  for (const auto& b : store.all()) state.tensors["buffers/" + b->name] = download(kernels, b->value.view());
}

void load_buffers(BufferStore& store, const Kernels& kernels, const StateDict& state) {
  for (const auto& b : store.all()) {
    const Tensor& from = state.tensor("buffers/" + b->name);
    QN_CHECK(from.shape == b->shape && from.dtype == b->value.view().dtype,
             "{} is {} in the checkpoint, but {} in this model: the configuration differs from the checkpoint's",
             b->name, from.shape.to_string(), b->shape.to_string());
    upload(kernels, b->value.view(), from);
  }
}

}  // namespace qn
