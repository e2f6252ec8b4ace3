#include "nn/kept_casts.h"

#include <set>

#include "ops/host_access.h"

namespace qn {
namespace {

constexpr size_t kAlignment = 256;  // what matrix products ask for at most

bool is_master(const Weight& weight) { return weight.is_cast() && weight.dense() != nullptr; }

}  // namespace

KeptCasts::KeptCasts(WeightSet& weights, const Kernels& kernels, DType dtype)
    : weights_(weights), kernels_(kernels), dtype_(dtype), used_(dtype != parameter_type(dtype) && !on_host(kernels)) {}

/// Weights that stand to the right of others come behind them, if they can begin there.
std::vector<KeptCasts::Place> KeptCasts::lay_out(size_t& bytes) const {
  std::set<const Weight*> behind, placed;
  for (const auto& w : weights_.all())
    if (is_master(*w) && w->next_beside() != nullptr) behind.insert(w->next_beside());
  std::vector<Place> places;
  bytes = 0;
  const auto place_row = [&](Weight* first) {
    for (Weight* w = first; w != nullptr && is_master(*w) && placed.insert(w).second; w = w->next_beside()) {
      bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      places.push_back({w, bytes});
      bytes += static_cast<size_t>(w->rows() * w->cols()) * size_of(dtype_);
    }
  };
  for (const auto& w : weights_.all())
    if (!behind.contains(w.get())) place_row(w.get());
  for (const auto& w : weights_.all()) place_row(w.get());  // what is in a circle, or behind what is not cast
  return places;
}

KeptCasts::Scope KeptCasts::begin() {
  if (!used_) return Scope(*this);
  size_t bytes = 0;
  if (std::vector<Place> places = lay_out(bytes); places != places_) {
    places_ = std::move(places);
    if (bytes > memory_.size()) {
      memory_ = {};
      memory_ = Buffer(bytes, *kernels_.memory);
    }
  }
  for (const Place& place : places_) {
    const Weight& w = *place.weight;
    const Tensor cast{memory_.data() + place.offset, {w.rows(), w.cols()}, dtype_};
    kernels_.copy(cast, w.dense()->value.reshaped(cast.shape));
    place.weight->keep_cast(cast);
  }
  return Scope(*this);
}

void KeptCasts::end() {
  for (const Place& place : places_) place.weight->keep_cast({});
}

}  // namespace qn
