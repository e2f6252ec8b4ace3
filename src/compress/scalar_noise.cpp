#include "compress/scalar_noise.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "compress/device_grid.h"
#include "compress/noisy_weight.h"
#include "core/text.h"
#include "ops/host_access.h"

namespace qn {
namespace {

/// With grids that every pass fits to the weight.
class ScalarNoise : public NoisyWeight {
 public:
  ScalarNoise(Parameter* dense, const ScalarNoiseOptions& options)
      : NoisyWeight(dense, options.rate), options_(options) {}

  Var value(Tape& tape) override {
    const Var w = matrix(tape);
    if (off(tape)) return w;
    const int64_t grids = options_.grid.method == RangeMethod::tensor ? 1 : w.value.shape[0];
    return fitted(tape, w, grids, options_.grid.method == RangeMethod::channel);
  }

 protected:
  /// Training at a time without noise; evaluation always quantizes.
  bool off(const Tape& tape) const { return tape.training() && rate() <= 0.0; }
  /// w with grids over the range it has now.
  Var fitted(Tape& tape, const Var& w, int64_t grids, bool symmetric) const {
    const Tensor range = tape.parameter_tensor({grids, 2});
    FakeQuantize how = with_grid(tape.parameter_tensor({grids}), tape.parameter_tensor({grids}));
    how.covers = true;
    tape.k.value_range(range, w.value, false);
    tape.k.range_to_grid(how.scale, how.zero_point, range, how.bits, symmetric);
    return fake_quantize(tape, w, how);
  }
  FakeQuantize with_grid(const Tensor& scale, const Tensor& zero_point) const {
    FakeQuantize how;
    how.scale = scale;
    how.zero_point = zero_point;
    how.bits = options_.grid.bits;
    how.p = rate();
    how.block = options_.block;
    how.id = id();
    return how;
  }

  ScalarNoiseOptions options_;
};

/// With a searched grid, which training keeps for some updates. Evaluation has one of its own, of the values as they
/// are then: searched when they have changed.
class SearchedNoise : public ScalarNoise {
 public:
  using ScalarNoise::ScalarNoise;

  void begin_update(const Kernels& kernels, int64_t update) override {
    if (rate() <= 0.0) return;
    const bool due = numbers_.empty() || update % options_.range_updates == 0;
    if (due) search(kernels, numbers_);
    if ((due || !training_.is_set()) && !numbers_.empty()) set(training_, kernels, numbers_);
  }

  Var value(Tape& tape) override {
    const Var w = matrix(tape);
    if (off(tape)) return w;
    if (!tape.training()) search_for_evaluation(tape.k);
    const DeviceGrid& grid = tape.training() ? training_ : evaluation_;
    // Before the first update and where values are not finite there is no grid.
    return grid.is_set() ? fake_quantize(tape, w, with_grid(grid.scale(), grid.zero_point()))
                         : fitted(tape, w, 1, false);
  }

  std::vector<float> state() const override { return numbers_; }
  void set_state(std::span<const float> state) override {
    QN_CHECK(state.size() == 2, "the checkpoint has {} numbers for the range of {}; a scale and a zero point are due",
             state.size(), dense()->name);
    numbers_.assign(state.begin(), state.end());
    training_ = {};
  }

 private:
  /// Leaves `numbers` (scale and zero point) as they are where the weight's values are not finite.
  void search(const Kernels& kernels, std::vector<float>& numbers) const {
    const HostView view(kernels, dense()->value);
    const std::vector<float> values = floats_of(view.view());
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return;
    const ScalarGrid grid = fit_grid(values.data(), 1, std::ssize(values), options_.grid);
    numbers = {grid.scale[0], grid.zero_point[0]};
  }
  void search_for_evaluation(const Kernels& kernels) {
    uint64_t hash = 0;
    {
      const HostView view(kernels, dense()->value);
      hash = hash_bytes(view.view().data, view.view().bytes());
    }
    if (evaluation_.is_set() && hash == evaluated_) return;
    std::vector<float> numbers;
    search(kernels, numbers);
    if (numbers.empty()) {
      evaluation_ = {};
      return;
    }
    set(evaluation_, kernels, numbers);
    evaluated_ = hash;
  }
  void set(DeviceGrid& grid, const Kernels& kernels, const std::vector<float>& numbers) const {
    grid.set(kernels, dense()->value.dtype, static_cast<double>(numbers[0]), static_cast<double>(numbers[1]));
  }
  static std::vector<float> floats_of(const Tensor& t) {
    std::vector<float> values(static_cast<size_t>(t.elements()));
    if (t.dtype == DType::f64)
      std::transform(t.as<double>(), t.as<double>() + t.elements(), values.begin(),
                     [](double v) { return static_cast<float>(v); });
    else
      std::copy_n(t.as<float>(), t.elements(), values.begin());
    return values;
  }

  std::vector<float> numbers_;  // of training: scale, zero point; empty: none yet
  DeviceGrid training_, evaluation_;
  uint64_t evaluated_ = 0;  // hash of the values that evaluation_ is for
};

}  // namespace

std::unique_ptr<Representation> make_scalar_noise(Parameter* dense, const ScalarNoiseOptions& options) {
  if (options.grid.method == RangeMethod::histogram) return std::make_unique<SearchedNoise>(dense, options);
  return std::make_unique<ScalarNoise>(dense, options);
}

}  // namespace qn
