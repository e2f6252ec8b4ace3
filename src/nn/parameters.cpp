#include "nn/parameters.h"

#include <algorithm>

#include "ops/host_access.h"

namespace qn {
namespace {

constexpr int64_t kAlignElements = 16;  // every slice starts on a cache line

template <typename T>
void draw(const Tensor& value, const InitRule& rule, const RandomStream& stream) {
  T* x = value.as<T>();
  const int64_t n = value.elements();
#pragma omp parallel for schedule(static) if (n > 65536)
  for (int64_t i = 0; i < n; ++i) {
    const auto index = static_cast<uint64_t>(i);
    double v = 0.0;
    if (rule.kind == InitRule::Kind::ones) v = 1.0;
    if (rule.kind == InitRule::Kind::normal) v = rule.scale * stream.normal(index);
    if (rule.kind == InitRule::Kind::uniform) v = rule.scale * (2.0 * stream.uniform(index) - 1.0);
    x[i] = static_cast<T>(v);
  }
  if (rule.zero_row >= 0) std::fill_n(x + rule.zero_row * value.cols(), value.cols(), T{0});
}

}  // namespace

Parameter* ParameterStore::add(std::string name, Shape shape, InitRule init) {
  QN_ASSERT(find(name) == nullptr, "parameter {} exists already", name);
  auto parameter = std::make_unique<Parameter>();
  parameter->name = std::move(name);
  parameter->shape = shape;
  parameter->init = init;
  return parameters_.emplace_back(std::move(parameter)).get();
}

void ParameterStore::remove(const Parameter* parameter) {
  std::erase_if(parameters_, [&](const auto& p) { return p.get() == parameter; });
}

Parameter* ParameterStore::find(const std::string& name) const {
  for (const auto& p : parameters_)
    if (p->name == name) return p.get();
  return nullptr;
}

void ParameterStore::allocate(DType dtype, const Kernels& kernels, bool gradients) {
  int64_t total = 0;
  for (const auto& p : parameters_)
    total += (p->shape.elements() + kAlignElements - 1) / kAlignElements * kAlignElements;
  OwnedTensor values({total}, dtype, *kernels.memory), grads;
  if (gradients) grads = OwnedTensor({total}, dtype, *kernels.memory);
  int64_t offset = 0;
  for (const auto& p : parameters_) {
    const auto slice = [&](const OwnedTensor& flat) {
      auto* base = static_cast<std::byte*>(flat.view().data) + static_cast<size_t>(offset) * size_of(dtype);
      return Tensor{base, p->shape, dtype};
    };
    const Tensor value = slice(values);
    if (p->value.defined()) upload(kernels, value, HostView(*kernels_, p->value).view());
    p->value = value;
    p->slot = {gradients ? slice(grads) : Tensor{}, false};
    p->offset = offset;
    offset += (p->shape.elements() + kAlignElements - 1) / kAlignElements * kAlignElements;
  }
  values_ = std::move(values);
  grads_ = std::move(grads);
  kernels_ = &kernels;
}

void ParameterStore::initialize(Parameter& p, uint64_t seed) {
  const RandomStream stream({.seed = seed, .purpose = Purpose::init, .id = hash_name(p.name.c_str())});
  write_on_host(*kernels_, p.value, [&](const Tensor& host) {
    if (host.dtype == DType::f64)
      draw<double>(host, p.init, stream);
    else
      draw<float>(host, p.init, stream);
  });
}

void ParameterStore::initialize(uint64_t seed) {
  for (const auto& p : parameters_) initialize(*p, seed);
}

void ParameterStore::set_values(Parameter& p, std::span<const float> values) {
  QN_CHECK(std::ssize(values) == p.shape.elements(), "{} is {}: give it {} values, not {}", p.name, p.shape.to_string(),
           p.shape.elements(), values.size());
  QN_ASSERT(p.value.defined(), "{} has no memory yet", p.name);
  write_on_host(*kernels_, p.value, [&](const Tensor& host) {
    if (host.dtype == DType::f64)
      std::copy(values.begin(), values.end(), host.as<double>());
    else
      std::copy(values.begin(), values.end(), host.as<float>());
  });
}

std::vector<float> ParameterStore::values_of(const Parameter& p) const {
  const HostView host(*kernels_, p.value);
  if (host.view().dtype == DType::f32) return {host.span<float>().begin(), host.span<float>().end()};
  std::vector<float> result;
  for (const double v : host.span<double>()) result.push_back(static_cast<float>(v));
  return result;
}

void ParameterStore::begin_gradients() {
  for (const auto& p : parameters_) p->slot.touched = false;
}

void ParameterStore::finish_gradients() {
  for (const auto& p : parameters_)
    if (!p->slot.touched) kernels_->fill(p->slot.grad, 0.0);
}

std::vector<std::string> ParameterStore::names() const {
  std::vector<std::string> result;
  for (const auto& p : parameters_) result.push_back(p->name);
  return result;
}

int64_t ParameterStore::elements() const {
  int64_t total = 0;
  for (const auto& p : parameters_) total += p->shape.elements();
  return total;
}

}  // namespace qn
