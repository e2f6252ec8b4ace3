#include "train/model_average.h"

#include <algorithm>
#include <cmath>

#include "ops/host_access.h"
#include "train/flat_state.h"

namespace qn {

double EmaConfig::decay_at(int64_t update) const {
  const int64_t since = update - start_update - 1;
  if (since <= 0) return 0.0;
  return warmup ? std::min(decay, 1.0 - std::pow(1.0 + static_cast<double>(since), -2.0 / 3.0)) : decay;
}

void EmaConfig::visit(ConfigVisitor& v) {
  v.field(
      "decay", decay,
      "validate and save, in place of the weights, their exponential moving average, in which older updates count by "
      "this factor less for every newer one (0: no average; EfficientNets: 0.9999)");
  v.field("warmup", warmup, "the factor rises to decay: after n updates it is at most 1 - (1 + n)^(-2/3)");
  v.field("start_update", start_update, "the average is a copy of the weights up to here");
}

void EmaConfig::validate(const ConfigChecker& c) const {
  c.check(decay >= 0.0 && decay < 1.0, "decay", "must be in [0, 1), got {}", decay);
  c.check(start_update >= 0, "start_update", "must not be negative, got {}", start_update);
}

ModelAverage::ModelAverage(Module& module) : module_(module) {
  const ParameterStore& store = module.parameters();
  const Kernels& k = store.kernels();
  parameters_ = OwnedTensor(store.values().shape, store.dtype(), *k.memory);
  for (const auto& buffer : module.buffers().all())
    if (const Tensor& value = buffer->value.view(); buffer->averaged)
      statistics_.push_back({buffer.get(), OwnedTensor(value.shape, value.dtype, *k.memory)});
  for_each([&](const Tensor& trained, const Tensor& average) { k.copy(average, trained); });
}

template <typename F>
void ModelAverage::for_each(F&& function) const {
  function(module_.parameters().values(), parameters_.view());
  for (const Statistic& s : statistics_) function(s.buffer->value.view(), s.average.view());
}

void ModelAverage::add(double decay) {
  const Kernels& k = module_.parameters().kernels();
  const double share = 1.0 - decay;
  for_each([&](const Tensor& trained, const Tensor& average) {
    k.axpy(average, average, -share, 1);
    k.axpy(average, trained, share, 1);
  });
}

void ModelAverage::exchange() {
  const Kernels& k = module_.parameters().kernels();
  for_each([&](const Tensor& trained, const Tensor& average) {
    const OwnedTensor kept(trained.shape, trained.dtype, *k.memory);
    k.copy(kept.view(), trained);
    k.copy(trained, average);
    k.copy(average, kept.view());
  });
  if (!statistics_.empty()) module_.refresh();
}

void ModelAverage::save(const Prefixes& prefixes, StateDict& state) const {
  save_slices(module_.parameters(), parameters_, prefixes.parameters, state);
  for (const Statistic& s : statistics_)
    state.tensors[prefixes.buffers + s.buffer->name] = download(module_.parameters().kernels(), s.average.view());
}

void ModelAverage::load(const Prefixes& prefixes, const StateDict& state) {
  load_slices(module_.parameters(), parameters_, prefixes.parameters, state);
  for (const Statistic& s : statistics_) {
    const std::string name = prefixes.buffers + s.buffer->name;
    if (!state.tensors.contains(name)) continue;
    const Tensor &from = state.tensor(name), &to = s.average.view();
    QN_CHECK(from.shape == to.shape && from.dtype == to.dtype, "{} is {} {} in the checkpoint, but {} {} here", name,
             name_of(from.dtype), from.shape.to_string(), name_of(to.dtype), to.shape.to_string());
    upload(module_.parameters().kernels(), to, from);
  }
}

size_t ModelAverage::bytes() const {
  size_t bytes = 0;
  for_each([&](const Tensor&, const Tensor& average) { bytes += average.bytes(); });
  return bytes;
}

bool holds_averages(const StateDict& state) {
  const auto entry = state.tensors.lower_bound(kTrained.parameters);
  return entry != state.tensors.end() && entry->first.starts_with(kTrained.parameters);
}

}  // namespace qn
