// Every entry of the op table against finite differences, in float against double, with accumulating gradients, and
// with different numbers of threads.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "counting_kernels.h"
#include "ops_table.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using Doubles = std::vector<double>;

Doubles to_doubles(const Tensor& t) {
  if (t.dtype == DType::bf16) return {t.span<bfloat16>().begin(), t.span<bfloat16>().end()};
  if (t.dtype == DType::f64) return {t.span<double>().begin(), t.span<double>().end()};
  return {t.span<float>().begin(), t.span<float>().end()};
}

void from_doubles(const Tensor& t, const Doubles& values) {
  if (t.dtype == DType::f64)
    std::copy(values.begin(), values.end(), t.as<double>());
  else if (t.dtype == DType::bf16)
    std::transform(values.begin(), values.end(), t.as<bfloat16>(),
                   [](double v) { return bfloat16(static_cast<float>(v)); });
  else
    std::copy(values.begin(), values.end(), t.as<float>());
}

/// Normal numbers that float represents exactly, so that both element types start from the same inputs.
Doubles draw(const std::string& name, uint32_t number, int64_t n, OpInput::Values kind = OpInput::Values::any) {
  const RandomStream stream({.seed = 11, .purpose = Purpose::test, .id = hash_name(name.c_str()), .update = number});
  Doubles values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) {
    double v = stream.normal(i);
    if (kind == OpInput::Values::positive) v = std::abs(v);
    if (kind == OpInput::Values::away_from_zero) v += std::copysign(0.01, v);
    if (kind == OpInput::Values::tiny) v *= 0.005 / (1.0 + std::abs(v));
    values[i] = static_cast<double>(static_cast<float>(v));
  }
  return values;
}

std::vector<Doubles> draw_inputs(const OpCase& op) {
  std::vector<Doubles> inputs;
  for (const OpInput& input : op.inputs)
    inputs.push_back(draw(op.name, static_cast<uint32_t>(inputs.size()), input.shape.elements(), input.values));
  return inputs;
}

/// Where the gradients of a run collect.
enum class Homes {
  none,     ///< not recording
  fresh,    ///< memory comes from the arena at the first contribution, as for activations
  garbage,  ///< memory is there and holds NaN, as for parameters at the start of an update
  ones      ///< an earlier use has contributed 1 to every element
};

struct OpRun {
  std::vector<Doubles> outputs, grads;
};

class Runner {
 public:
  Runner(const OpCase& op, DType dtype, const Kernels& kernels = cpu_kernels())
      : op_(op), tape_(kernels, arena_, dtype, {}) {}

  OpRun run(const std::vector<Doubles>& inputs, Homes kind) { return run(op_.forward, inputs, kind); }

  /// Sum of all outputs with the weights that the last recorded run gave them; of the surrogate where there is one.
  double objective(const std::vector<Doubles>& inputs, const std::vector<Doubles>& unperturbed) {
    std::vector<Doubles> all = inputs;
    if (op_.surrogate) all.insert(all.end(), unperturbed.begin(), unperturbed.end());
    const OpRun result = run(op_.surrogate ? op_.surrogate : op_.forward, all, Homes::none);
    double sum = 0.0;
    for (size_t o = 0; o < result.outputs.size(); ++o)
      sum += std::inner_product(weights_[o].begin(), weights_[o].end(), result.outputs[o].begin(), 0.0);
    return sum;
  }

 private:
  /// New memory from the arena holds NaN: whoever reads before writing is found out.
  void poison() {
    constexpr size_t kBytes = size_t{4} << 20;
    std::memset(arena_.allocate(kBytes), 0xff, kBytes);
    arena_.reset();
  }

  DType type_of(const OpInput& input) const { return input.parameter ? tape_.parameter_dtype() : tape_.dtype(); }

  GradHome make_home(const Tensor& value, Homes kind) {
    GradHome home{{nullptr, value.shape, value.dtype}, false};
    if (kind == Homes::fresh) return home;
    home.grad = arena_.tensor(value.shape, value.dtype);
    cpu_kernels().fill(home.grad, kind == Homes::ones ? 1.0 : std::nan(""));
    home.touched = kind == Homes::ones;
    return home;
  }

  OpRun run(const OpCase::Forward& forward, const std::vector<Doubles>& inputs, Homes kind) {
    const bool recording = kind != Homes::none;
    if (recording) poison();
    tape_.restart({.training = op_.training, .recording = recording, .seed = 7, .update = 3, .micro_batch = 2});
    std::vector<GradHome> homes(inputs.size());
    std::vector<Var> vars;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OpInput& input = op_.inputs[i % op_.inputs.size()];
      const Tensor value = arena_.tensor(input.shape, type_of(input));
      from_doubles(value, inputs[i]);
      if (recording) homes[i] = make_home(value, kind);
      vars.push_back({value, recording ? &homes[i] : nullptr});
    }
    OpRun result;
    const std::vector<Var> outputs = forward(tape_, vars);
    for (const Var& y : outputs) result.outputs.push_back(to_doubles(y.value));
    if (recording) {
      seed_gradients(outputs);
      tape_.backward();
      for (size_t i = 0; i < homes.size(); ++i)
        result.grads.push_back(homes[i].touched ? to_doubles(homes[i].grad) : Doubles(inputs[i].size(), 0.0));
    }
    arena_.reset();
    return result;
  }

  /// Results weigh in with random numbers, losses (which have no home) with 1.
  void seed_gradients(const std::vector<Var>& outputs) {
    weights_.clear();
    for (const Var& y : outputs) {
      const int64_t n = y.value.elements();
      if (y.home == nullptr) {
        weights_.emplace_back(static_cast<size_t>(n), 1.0);
        continue;
      }
      weights_.push_back(draw(op_.name, static_cast<uint32_t>(100 + weights_.size()), n));
      const Tape::Slot slot = tape_.slot(y);
      QN_ASSERT(slot.beta == 0);
      from_doubles(slot.grad, weights_.back());
    }
  }

  const OpCase& op_;
  Arena arena_;
  Tape tape_;
  std::vector<Doubles> weights_;  ///< of each output in the objective, from the last recorded run
};

class OpTest : public testing::TestWithParam<OpCase> {
 protected:
  const OpCase& op() const { return GetParam(); }
};

/// Elements to differentiate one by one: all of a small tensor, a spread of a large one.
std::vector<size_t> sample(size_t n) {
  constexpr size_t kMost = 24;
  std::vector<size_t> picked;
  for (size_t i = 0; i < std::min(n, kMost); ++i)
    picked.push_back(n <= kMost ? i : std::min(n - 1, i * n / kMost + i % 3));
  return picked;
}

TEST_P(OpTest, GradientMatchesFiniteDifferences) {
  if (!op().differentiable) return;
  constexpr double kStep = 1e-5;
  Runner runner(op(), DType::f64);
  const std::vector<Doubles> inputs = draw_inputs(op());
  const OpRun exact = runner.run(inputs, Homes::fresh);
  // Rounding of the objective, amplified by the division by the step.
  const double floor = 1e-9 * (1.0 + std::abs(runner.objective(inputs, inputs)));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto derivative = [&](const auto& move) {
      std::vector<Doubles> up = inputs, down = inputs;
      move(up[i], kStep);
      move(down[i], -kStep);
      return (runner.objective(up, inputs) - runner.objective(down, inputs)) / (2 * kStep);
    };
    const Doubles& grad = exact.grads[i];
    Doubles numeric, analytic;
    for (const size_t e : sample(grad.size())) {
      numeric.push_back(derivative([e](Doubles& x, double h) { x[e] += h; }));
      analytic.push_back(grad[e]);
    }
    EXPECT_TRUE(close(analytic, numeric, kFiniteDifferenceTolerance, floor)) << "input " << i;
    // One direction through all elements.
    const Doubles direction = draw(op().name, 50, static_cast<int64_t>(grad.size()));
    const double along = std::inner_product(grad.begin(), grad.end(), direction.begin(), 0.0);
    const double length = std::sqrt(std::inner_product(grad.begin(), grad.end(), grad.begin(), 0.0));
    const double slope = derivative([&](Doubles& x, double h) {
      for (size_t e = 0; e < x.size(); ++e) x[e] += h * direction[e];
    });
    EXPECT_NEAR(along, slope, kFiniteDifferenceTolerance * length + floor) << "input " << i;
  }
}

TEST_P(OpTest, FloatMatchesDouble) {
  Runner single(op(), DType::f32), exact(op(), DType::f64);
  const std::vector<Doubles> inputs = draw_inputs(op());
  const Homes homes = op().differentiable ? Homes::garbage : Homes::none;
  const OpRun a = single.run(inputs, homes), b = exact.run(inputs, homes);
  for (size_t o = 0; o < a.outputs.size(); ++o)
    EXPECT_TRUE(close(a.outputs[o], b.outputs[o], kLayerTolerance)) << "output " << o;
  for (size_t i = 0; i < a.grads.size(); ++i)
    EXPECT_TRUE(close(a.grads[i], b.grads[i], kLayerTolerance, kZeroGradientTolerance)) << "gradient of input " << i;
}

TEST_P(OpTest, Bfloat16MatchesDouble) {
  Runner coarse(op(), DType::bf16), exact(op(), DType::f64);
  std::vector<Doubles> inputs = draw_inputs(op());
  for (size_t i = 0; i < inputs.size(); ++i)  // activations that bf16 represents: both start from the same
    if (!op().inputs[i].parameter)
      for (double& v : inputs[i]) v = bfloat16(static_cast<float>(v));
  const Homes homes = op().differentiable ? Homes::garbage : Homes::none;
  const OpRun a = coarse.run(inputs, homes), b = exact.run(inputs, homes);
  for (size_t o = 0; o < a.outputs.size(); ++o)
    EXPECT_TRUE(close(a.outputs[o], b.outputs[o], kBfloat16LayerTolerance)) << "output " << o;
  for (size_t i = 0; i < a.grads.size(); ++i)
    EXPECT_TRUE(close(a.grads[i], b.grads[i], kBfloat16LayerTolerance, kBfloat16ZeroGradientTolerance))
        << "gradient of input " << i;
}

TEST_P(OpTest, GradientsOverwriteGarbageAndAddToEarlierUses) {
  if (!op().differentiable) return;
  Runner runner(op(), DType::f64);
  const std::vector<Doubles> inputs = draw_inputs(op());
  const OpRun fresh = runner.run(inputs, Homes::fresh);
  EXPECT_EQ(runner.run(inputs, Homes::garbage).grads, fresh.grads);
  EXPECT_EQ(runner.run(inputs, Homes::none).outputs, fresh.outputs) << "recording changes the result";
  if (op().single_use) return;
  const OpRun added = runner.run(inputs, Homes::ones);
  for (size_t i = 0; i < inputs.size(); ++i) {
    Doubles expected = fresh.grads[i];
    for (double& g : expected) g += 1.0;
    EXPECT_TRUE(close(added.grads[i], expected, kDoubleTolerance)) << "input " << i;
  }
}

void expect_same_on_any_threads(const OpCase& op, DType dtype, double product_tolerance) {
  const std::vector<Doubles> inputs = draw_inputs(op);
  const Homes homes = op.differentiable ? Homes::garbage : Homes::none;
  Runner runner(op, dtype, counting_kernels());
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const int64_t products = kernel_calls()["matmul"];
  const OpRun one = runner.run(inputs, homes);
  // Large matrix products are the library's, which may share them out along the summed dimension.
  const double tolerance = kernel_calls()["matmul"] > products ? product_tolerance : 0.0;
  omp_set_num_threads(3);
  const OpRun three = runner.run(inputs, homes);
  omp_set_num_threads(threads);
  for (size_t o = 0; o < one.outputs.size(); ++o)
    EXPECT_TRUE(close(three.outputs[o], one.outputs[o], tolerance)) << "output " << o;
  for (size_t i = 0; i < one.grads.size(); ++i)
    EXPECT_TRUE(close(three.grads[i], one.grads[i], tolerance)) << "gradient of input " << i;
}

TEST_P(OpTest, NumberOfThreadsDoesNotMatter) {
  expect_same_on_any_threads(op(), DType::f32, kSummationTolerance);
  expect_same_on_any_threads(op(), DType::bf16, kBfloat16LayerTolerance);
}

INSTANTIATE_TEST_SUITE_P(Table, OpTest, testing::ValuesIn(ops_table()),
                         [](const testing::TestParamInfo<OpCase>& entry) { return entry.param.name; });

TEST(OpsTable, ReachesEveryKernel) {
  const auto before = kernel_calls();
  for (const OpCase& op : ops_table())
    Runner(op, DType::f32, counting_kernels()).run(draw_inputs(op), op.differentiable ? Homes::garbage : Homes::none);
  const auto after = kernel_calls();
  for (const auto& [name, calls] : after)
    EXPECT_GT(calls, before.at(name)) << name << " is reached by no entry of ops_table.cpp";
}

TEST(CpuKernels, HaveEveryEntry) {
  const Kernels& table = cpu_kernels();
  EXPECT_STREQ(table.backend, "cpu");
#define QN_ENTRY(name) EXPECT_NE(table.name, nullptr) << #name;
  QN_EACH_KERNEL(QN_ENTRY)
#undef QN_ENTRY
}

}  // namespace
}  // namespace qn::test
