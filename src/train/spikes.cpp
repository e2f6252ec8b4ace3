#include "train/spikes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace qn {
namespace {

constexpr const char *kLosses = "spikes/losses", *kNorms = "spikes/norms", *kOut = "spikes/out";
constexpr double kNormal = 1.4826;  // standard deviation of normal values over their median distance from the median
constexpr double kLossFactor = 1.1, kNormFactor = 2.0;

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// How far `value` is above the median of `values`, in deviations; the median comes back, too.
double deviations_above(const std::vector<double>& values, double value, double& usual) {
  usual = median(values);
  std::vector<double> distances;
  distances.reserve(values.size());
  for (const double v : values) distances.push_back(std::abs(v - usual));
  const double deviation = kNormal * median(std::move(distances));
  if (value <= usual) return 0.0;
  return deviation > 0.0 ? (value - usual) / deviation : INFINITY;
}

void remember(std::vector<double>& values, double value) {
  if (values.size() == SpikeDetector::kWindow) values.erase(values.begin());
  values.push_back(value);
}

OwnedTensor stored(const std::vector<double>& values) {
  OwnedTensor tensor({std::ssize(values)}, DType::f64);
  std::copy(values.begin(), values.end(), tensor.view().as<double>());
  return tensor;
}

void restore(const StateDict& state, const char* name, std::vector<double>& values) {
  const auto entry = state.tensors.find(name);
  values.clear();
  if (entry == state.tensors.end() || entry->second.view().dtype != DType::f64) return;
  const auto span = entry->second.view().span<double>();
  values.assign(span.begin(), span.end());
  if (values.size() > SpikeDetector::kWindow) values.clear();
}

}  // namespace

std::string text_of(const Spike& spike) {
  return fmt::format("the {} is {:.4g}, usually about {:.4g}", spike.what, spike.value, spike.usual);
}

std::optional<Spike> SpikeDetector::add(double loss, double grad_norm) {
  if (deviations_ <= 0.0 || !std::isfinite(loss) || !(grad_norm > 0.0) || !std::isfinite(grad_norm)) return {};
  const double norm = std::log(grad_norm);
  std::optional<Spike> found;
  if (losses_.size() >= kLeast) {
    double usual_loss = 0.0, usual_norm = 0.0;
    const double by_loss = deviations_above(losses_, loss, usual_loss),
                 by_norm = deviations_above(norms_, norm, usual_norm);
    if (by_loss >= deviations_ && loss >= kLossFactor * usual_loss)
      found = Spike{"loss", loss, usual_loss};
    else if (by_norm >= deviations_ && grad_norm >= kNormFactor * std::exp(usual_norm))
      found = Spike{"gradient norm", grad_norm, std::exp(usual_norm)};
  }
  remember(losses_, loss);
  remember(norms_, norm);
  const bool goes_on = std::exchange(out_, found.has_value());
  return goes_on ? std::nullopt : found;
}

void SpikeDetector::clear() {
  losses_.clear();
  norms_.clear();
  out_ = false;
}

void SpikeDetector::save(StateDict& state) const {
  if (losses_.empty()) return;
  state.tensors[kLosses] = stored(losses_);
  state.tensors[kNorms] = stored(norms_);
  state.ints[kOut] = out_ ? 1 : 0;
}

void SpikeDetector::load(const StateDict& state) {
  restore(state, kLosses, losses_);
  restore(state, kNorms, norms_);
  const auto out = state.ints.find(kOut);
  out_ = out != state.ints.end() && out->second != 0;
  if (losses_.size() != norms_.size()) clear();
}

}  // namespace qn
