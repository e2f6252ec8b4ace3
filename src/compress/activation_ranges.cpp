#include "compress/activation_ranges.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/text.h"
#include "ops/host_access.h"
#include "ops/uniform_grid.h"

namespace qn {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLongestAverage = 100.0;  // updates

class Ranges;

class Watched : public ActivationQuantizer {
 public:
  Watched(Ranges& ranges, size_t index, const ActivationPlan& plan) : ranges_(ranges), index_(index), plan_(plan) {}
  Var apply(Tape& tape, const Var& x) override;
  const ActivationGrid* grid() const override;

 private:
  Ranges& ranges_;
  size_t index_;
  ActivationPlan plan_;
};

/// All watched places of a module. What the passes see is in one tensor, so that the end of an update costs one copy.
class Ranges : public ActivationObserver {
 public:
  Ranges(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training);
  void refresh(DType dtype, const Kernels& kernels) override;
  void end_update(const Kernels& kernels, const std::function<void(std::span<double>)>& reduce_max) override;

  void drop_update(const Kernels& kernels) override { see_nothing(kernels); }

  Tensor seen(size_t i) const { return element(seen_.view(), i, {1, 2}); }
  Tensor scale(size_t i) const { return element(scale_.view(), i, {1}); }
  Tensor zero_point(size_t i) const { return element(zero_point_.view(), i, {1}); }
  bool has_range(size_t i) const { return states_[i].updates > 0.0f; }
  const ActivationGrid& grid(size_t i) const { return grids_[i]; }
  void set_calibrating(bool calibrating) override { calibrating_ = calibrating; }
  bool calibrated() const override {
    return std::all_of(states_.begin(), states_.end(), [](const State& s) { return s.updates > 0.0f; });
  }
  double rate() const { return round_in_training_ ? 1.0 : 0.0; }
  bool calibrating() const { return calibrating_; }

 private:
  struct State {
    float low = 0.0f, high = 0.0f, updates = 0.0f;  // as they are saved
  };
  static Tensor element(const Tensor& all, size_t i, Shape shape) {
    const size_t offset = i * static_cast<size_t>(shape.elements()) * size_of(all.dtype);
    return {static_cast<std::byte*>(all.data) + offset, shape, all.dtype};
  }
  void see_nothing(const Kernels& kernels);
  void write_grids(const Kernels& kernels);

  std::vector<ModuleBuffer*> buffers_;
  std::vector<State> states_;
  std::vector<ActivationGrid> grids_;
  bool round_in_training_, calibrating_ = false;
  OwnedTensor seen_, scale_, zero_point_;  // [n, 2], [n], [n]
};

Var Watched::apply(Tape& tape, const Var& x) {
  if (tape.training() || ranges_.calibrating()) tape.k.value_range(ranges_.seen(index_), x.value, true);
  if (!ranges_.has_range(index_) || ranges_.calibrating()) return x;
  FakeQuantize how;
  how.scale = ranges_.scale(index_);
  how.zero_point = ranges_.zero_point(index_);
  how.bits = plan_.bits;
  how.p = ranges_.rate();
  how.id = hash_name(plan_.name.c_str());
  return fake_quantize(tape, x, how);
}

const ActivationGrid* Watched::grid() const {
  return ranges_.has_range(index_) && !ranges_.calibrating() ? &ranges_.grid(index_) : nullptr;
}

Ranges::Ranges(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training)
    : states_(plan.size()), grids_(plan.size()), round_in_training_(round_in_training) {
  for (size_t i = 0; i < plan.size(); ++i) {
    buffers_.push_back(module.buffers().add(range_name(plan[i].name), {kRangeNumbers}, 0.0));
    grids_[i].bits = plan[i].bits;
  }
}

void Ranges::see_nothing(const Kernels& kernels) {
  write_on_host(kernels, seen_.view(), [&](const Tensor& host) {
    const auto fill = [&](auto* values) {
      for (int64_t i = 0; i < host.elements(); ++i)
        values[i] = static_cast<std::remove_pointer_t<decltype(values)>>(i % 2 == 0 ? kInfinity : -kInfinity);
    };
    host.dtype == DType::f64 ? fill(host.as<double>()) : fill(host.as<float>());
  });
}

void Ranges::refresh(DType dtype, const Kernels& kernels) {
  const auto n = static_cast<int64_t>(states_.size());
  seen_ = OwnedTensor({n, 2}, dtype, *kernels.memory);
  scale_ = OwnedTensor({n}, dtype, *kernels.memory);
  zero_point_ = OwnedTensor({n}, dtype, *kernels.memory);
  for (size_t i = 0; i < states_.size(); ++i) {
    const HostView view(kernels, buffers_[i]->value.view());
    const auto number = [&](int64_t at) {
      return view.view().dtype == DType::f64 ? view.view().as<double>()[at] : double{view.view().as<float>()[at]};
    };
    states_[i] = {static_cast<float>(number(0)), static_cast<float>(number(1)), static_cast<float>(number(2))};
  }
  see_nothing(kernels);
  write_grids(kernels);
}

void Ranges::write_grids(const Kernels& kernels) {
  const auto write = [&](auto tag) {
    using P = decltype(tag);
    std::vector<P> scales, zero_points;
    for (size_t i = 0; i < states_.size(); ++i) {
      const UniformGrid<P> grid =
          grid_of_range(static_cast<P>(states_[i].low), static_cast<P>(states_[i].high), grids_[i].bits, false);
      scales.push_back(grid.scale);
      zero_points.push_back(grid.zero_point);
    }
    const Shape shape{std::ssize(scales)};
    upload(kernels, scale_.view(), view_of(scales.data(), shape));
    upload(kernels, zero_point_.view(), view_of(zero_points.data(), shape));
  };
  if (scale_.view().dtype == DType::f64) return write(double{});
  write(float{});
  for (size_t i = 0; i < grids_.size(); ++i) {
    grids_[i].scale = scale(i).as<float>();
    grids_[i].zero_point = zero_point(i).as<float>();
  }
}

void Ranges::end_update(const Kernels& kernels, const std::function<void(std::span<double>)>& reduce_max) {
  std::vector<double> seen;  // -lowest, highest
  const HostView view(kernels, seen_.view());
  for (int64_t i = 0; i < view.view().elements(); ++i) {
    const double value = view.view().dtype == DType::f64 ? view.view().as<double>()[i] : view.view().as<float>()[i];
    seen.push_back(i % 2 == 0 ? -value : value);
  }
  reduce_max(seen);
  for (size_t i = 0; i < states_.size(); ++i) {
    const double low = -seen[2 * i], high = seen[2 * i + 1];
    if (!(low <= high) || !std::isfinite(high - low)) continue;  // nothing passed here, or the update has diverged
    State& s = states_[i];
    s.updates += 1.0f;
    const double share = 1.0 / std::min<double>(s.updates, kLongestAverage);
    s.low = static_cast<float>(s.low + share * (low - s.low));
    s.high = static_cast<float>(s.high + share * (high - s.high));
    write_on_host(kernels, buffers_[i]->value.view(), [&](const Tensor& host) {
      const auto put = [&](auto* values) {
        using P = std::remove_pointer_t<decltype(values)>;
        values[0] = static_cast<P>(s.low), values[1] = static_cast<P>(s.high), values[2] = static_cast<P>(s.updates);
      };
      host.dtype == DType::f64 ? put(host.as<double>()) : put(host.as<float>());
    });
  }
  see_nothing(kernels);
  write_grids(kernels);
}

}  // namespace

void quantize_activations(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training) {
  if (plan.empty()) return;
  QN_ASSERT(module.activations().observer() == nullptr, "activations are quantized already");
  const auto ranges = std::make_shared<Ranges>(module, plan, round_in_training);
  for (size_t i = 0; i < plan.size(); ++i) {
    ActivationPoint* found = nullptr;
    std::vector<std::string> names;
    for (const auto& point : module.activations().all()) {
      names.push_back(point->name());
      if (point->name() == plan[i].name) found = point.get();
    }
    QN_CHECK(found != nullptr, "no activation of this model is called '{}'; the nearest is '{}'", plan[i].name,
             names.empty() ? "" : nearest(plan[i].name, names, 1).front());
    found->set_quantizer(std::make_unique<Watched>(*ranges, i, plan[i]));
  }
  module.activations().set_observer(ranges);
}

}  // namespace qn
