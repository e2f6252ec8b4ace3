#include "compress/activation_ranges.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/text.h"
#include "ops/host_access.h"
#include "ops/uniform_grid.h"
#include "quant/value_histogram.h"

namespace qn {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kLongestAverage = 100;  // updates

/// Ranges change fast when training starts.
bool search_due(int64_t update, int64_t every) {
  return update % every == 0 || (update < every && std::has_single_bit(static_cast<uint64_t>(update)));
}

/// How many observed ranges are averaged.
int64_t longest_average(const ActivationPlan& plan) {
  return plan.range == RangeMethod::histogram ? std::max<int64_t>(kLongestAverage / plan.range_updates, 1)
                                              : kLongestAverage;
}

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
  bool begin_update(int64_t update) override;
  void end_update(const Kernels& kernels, const AcrossRanks& ranks) override;
  void drop_update(const Kernels& kernels) override;

  /// What passes place i of a pass that is watched.
  void watch(size_t i, const Kernels& kernels, const Tensor& x);
  Tensor seen(size_t i) const { return element(seen_.view(), i, {1, 2}); }
  Tensor scale(size_t i) const { return element(scale_.view(), i, {1}); }
  Tensor zero_point(size_t i) const { return element(zero_point_.view(), i, {1}); }
  bool has_range(size_t i) const { return states_[i].updates > 0.0f; }
  const ActivationGrid& grid(size_t i) const { return grids_[i]; }
  void set_calibrating(bool calibrating) override {
    calibrating_ = calibrating;
    count_where([&](size_t) { return calibrating; });
  }
  int64_t calibration_group(int64_t passes) const override;
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
  /// A range in which nothing is outside when all ranks have seen no more than `low` to `high`.
  struct Bounds {
    double low, high;
    bool usable() const { return low <= high && std::isfinite(high - low); }
  };
  template <typename Condition>
  bool count_where(const Condition& condition);
  bool searched(size_t i) const { return plan_[i].range == RangeMethod::histogram; }
  void see_nothing(const Kernels& kernels);
  std::vector<Bounds> seen_by_all(const Kernels& kernels, const AcrossRanks& ranks) const;
  void search(std::vector<Bounds>& bounds, const AcrossRanks& ranks);
  void average(size_t i, const Bounds& bounds);
  void write_state(size_t i, const Kernels& kernels);
  void write_grids(const Kernels& kernels);

  std::vector<ActivationPlan> plan_;
  std::vector<ModuleBuffer*> buffers_;
  std::vector<std::unique_ptr<ValueHistogram>> counted_;  // where values are counted now
  std::vector<State> states_;
  std::vector<ActivationGrid> grids_;
  bool round_in_training_, calibrating_ = false;
  OwnedTensor seen_, scale_, zero_point_;  // [n, 2], [n], [n]
};

Var Watched::apply(Tape& tape, const Var& x) {
  if (tape.training() || ranges_.calibrating()) ranges_.watch(index_, tape.k, x.value);
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
    : plan_(plan),
      counted_(plan.size()),
      states_(plan.size()),
      grids_(plan.size()),
      round_in_training_(round_in_training) {
  for (size_t i = 0; i < plan.size(); ++i) {
    buffers_.push_back(module.buffers().add(range_name(plan[i].name), {kRangeNumbers}, 0.0));
    buffers_.back()->averaged = false;  // zeros stand for a range that is not known yet
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

/// Begins to count values, from zero, in the places where ranges are searched for and the condition holds.
template <typename Condition>
bool Ranges::count_where(const Condition& condition) {
  bool any = false;
  for (size_t i = 0; i < plan_.size(); ++i) {
    const bool due = searched(i) && condition(i);
    counted_[i] = due ? std::make_unique<ValueHistogram>() : nullptr;
    any = any || due;
  }
  return any;
}

bool Ranges::begin_update(int64_t update) {
  return count_where([&](size_t i) { return !has_range(i) || search_due(update, plan_[i].range_updates); });
}

void Ranges::drop_update(const Kernels& kernels) {
  see_nothing(kernels);
  count_where([](size_t) { return false; });
}

int64_t Ranges::calibration_group(int64_t passes) const {
  constexpr int64_t kAveraged = 8;
  return searched(0) ? passes : kAveraged;
}

void Ranges::watch(size_t i, const Kernels& kernels, const Tensor& x) {
  if (searched(i) && counted_[i] == nullptr) return;
  kernels.value_range(seen(i), x, true);
  if (counted_[i] != nullptr) counted_[i]->add(HostView(kernels, x).view());
}

std::vector<Ranges::Bounds> Ranges::seen_by_all(const Kernels& kernels, const AcrossRanks& ranks) const {
  std::vector<double> seen;  // -lowest, highest
  const HostView view(kernels, seen_.view());
  for (int64_t i = 0; i < view.view().elements(); ++i) {
    const double value = view.view().dtype == DType::f64 ? view.view().as<double>()[i] : view.view().as<float>()[i];
    seen.push_back(i % 2 == 0 ? -value : value);
  }
  ranks.max(seen);
  std::vector<Bounds> bounds;
  for (size_t i = 0; i < plan_.size(); ++i) bounds.push_back({-seen[2 * i], seen[2 * i + 1]});
  return bounds;
}

/// Narrows the bounds of places where values were counted.
void Ranges::search(std::vector<Bounds>& bounds, const AcrossRanks& ranks) {
  std::vector<size_t> places;  // the same on every rank
  for (size_t i = 0; i < plan_.size(); ++i)
    if (counted_[i] != nullptr && bounds[i].usable()) places.push_back(i);
  if (places.empty()) return;
  std::vector<int64_t> counts;
  for (const size_t i : places) {
    counted_[i]->cover(bounds[i].low, bounds[i].high);
    counts.insert(counts.end(), counted_[i]->counts().begin(), counted_[i]->counts().end());
  }
  ranks.sum(counts);
  std::vector<RangeSearch> searches;
  for (size_t p = 0; p < places.size(); ++p) {
    const size_t i = places[p];
    const auto from = counts.begin() + static_cast<std::ptrdiff_t>(p) * ValueHistogram::kBins;
    std::copy_n(from, ValueHistogram::kBins, counted_[i]->counts().begin());
    searches.push_back({counted_[i].get(), bounds[i].low, bounds[i].high, last_code(plan_[i].bits) + 1});
  }
  const auto found = search_all(searches);
  for (size_t p = 0; p < places.size(); ++p) bounds[places[p]] = {found[p].low, found[p].high};
}

void Ranges::average(size_t i, const Bounds& bounds) {
  State& s = states_[i];
  s.updates += 1.0f;
  const double share = 1.0 / std::min(static_cast<double>(s.updates), static_cast<double>(longest_average(plan_[i])));
  s.low = static_cast<float>(s.low + share * (bounds.low - s.low));
  s.high = static_cast<float>(s.high + share * (bounds.high - s.high));
}

void Ranges::write_state(size_t i, const Kernels& kernels) {
  write_on_host(kernels, buffers_[i]->value.view(), [&](const Tensor& host) {
    const auto put = [&, s = states_[i]](auto* values) {
      using P = std::remove_pointer_t<decltype(values)>;
      values[0] = static_cast<P>(s.low), values[1] = static_cast<P>(s.high), values[2] = static_cast<P>(s.updates);
    };
    host.dtype == DType::f64 ? put(host.as<double>()) : put(host.as<float>());
  });
}

void Ranges::end_update(const Kernels& kernels, const AcrossRanks& ranks) {
  std::vector<Bounds> bounds = seen_by_all(kernels, ranks);
  search(bounds, ranks);
  for (size_t i = 0; i < states_.size(); ++i) {
    if (!bounds[i].usable()) continue;  // nothing passed here, or the update has diverged
    average(i, bounds[i]);
    write_state(i, kernels);
  }
  drop_update(kernels);
  write_grids(kernels);
}

/// The places that a plan means by this name; the first name that fits decides.
std::vector<ActivationPoint*> places_named(const Module& module, const std::string& name) {
  std::vector<ActivationPoint*> found;
  std::vector<std::string> names;
  for (const auto& point : module.activations().all()) {
    if (point->name() == name) return {point.get()};
    if (point->former() == name) found.push_back(point.get());
    names.push_back(point->name());
  }
  QN_CHECK(!found.empty(), "no activation of this model is called '{}'; the nearest is '{}'", name,
           names.empty() ? "" : nearest(name, names, 1).front());
  return found;
}

}  // namespace

bool ranges_differ(const std::vector<ActivationPlan>& one, const std::vector<ActivationPlan>& other) {
  if (one.empty() || other.empty()) return false;
  const ActivationPlan &a = one.front(), &b = other.front();  // plans have one choice for all places
  return a.range != b.range || (a.range == RangeMethod::histogram && a.bits != b.bits);
}

void quantize_activations(Module& module, const std::vector<ActivationPlan>& plan, bool round_in_training) {
  if (plan.empty()) return;
  QN_ASSERT(module.activations().observer() == nullptr, "activations are quantized already");
  const auto ranges = std::make_shared<Ranges>(module, plan, round_in_training);
  for (size_t i = 0; i < plan.size(); ++i)
    for (ActivationPoint* place : places_named(module, plan[i].name)) {
      place->set_quantizer(std::make_unique<Watched>(*ranges, i, plan[i]));
      if (place->name() == plan[i].name && !place->former().empty())
        module.buffers().find(range_name(place->name()))->former = range_name(place->former());
    }
  module.activations().set_observer(ranges);
}

}  // namespace qn
