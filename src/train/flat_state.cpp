#include "train/flat_state.h"

#include "ops/host_access.h"

namespace qn {

Tensor state_slice(const OwnedTensor& flat, const Parameter& p) {
  const Tensor& t = flat.view();
  return {static_cast<std::byte*>(t.data) + static_cast<size_t>(p.offset) * size_of(t.dtype), p.shape, t.dtype};
}

void save_slices(const ParameterStore& store, const OwnedTensor& flat, const std::string& prefix, StateDict& state) {
  for (const auto& p : store.all()) state.keep(prefix + p->name, store.kernels(), state_slice(flat, *p));
}

void load_slices(const ParameterStore& store, const OwnedTensor& flat, const std::string& prefix,
                 const StateDict& state) {
  for (const auto& p : store.all()) {
    const Tensor to = state_slice(flat, *p), &from = state.tensor(prefix + p->name);
    QN_CHECK(from.shape == to.shape && from.dtype == to.dtype, "{}{} is {} {} in the checkpoint, but {} {} here",
             prefix, p->name, name_of(from.dtype), from.shape.to_string(), name_of(to.dtype), to.shape.to_string());
    upload(store.kernels(), to, from);
  }
}

}  // namespace qn
