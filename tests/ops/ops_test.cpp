// Every entry of the op table against finite differences, in float against double, with accumulating gradients, and
// with different numbers of threads.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "counting_kernels.h"
#include "op_runner.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

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
  const OpRun exact = runner.run(inputs, Slots::fresh);
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
  const Slots slots = op().differentiable ? Slots::garbage : Slots::none;
  const OpRun a = single.run(inputs, slots), b = exact.run(inputs, slots);
  for (size_t o = 0; o < a.outputs.size(); ++o)
    EXPECT_TRUE(close(a.outputs[o], b.outputs[o], kLayerTolerance)) << "output " << o;
  for (size_t i = 0; i < a.grads.size(); ++i)
    EXPECT_TRUE(close(a.grads[i], b.grads[i], kLayerTolerance, kZeroGradientTolerance)) << "gradient of input " << i;
}

TEST_P(OpTest, Bfloat16MatchesDouble) {
  Runner coarse(op(), DType::bf16), exact(op(), DType::f64);
  const std::vector<Doubles> inputs = draw_inputs(op(), DType::bf16);
  const Slots slots = op().differentiable ? Slots::garbage : Slots::none;
  const OpRun a = coarse.run(inputs, slots), b = exact.run(inputs, slots);
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
  const OpRun fresh = runner.run(inputs, Slots::fresh);
  EXPECT_EQ(runner.run(inputs, Slots::garbage).grads, fresh.grads);
  EXPECT_EQ(runner.run(inputs, Slots::none).outputs, fresh.outputs) << "recording changes the result";
  if (op().single_use) return;
  const OpRun added = runner.run(inputs, Slots::ones);
  for (size_t i = 0; i < inputs.size(); ++i) {
    Doubles expected = fresh.grads[i];
    for (double& g : expected) g += 1.0;
    EXPECT_TRUE(close(added.grads[i], expected, kDoubleTolerance)) << "input " << i;
  }
}

int64_t calls_of_products() {
  const auto calls = kernel_calls();
  return calls.at("matmul") + calls.at("matmul_codes") + calls.at("conv2d") + calls.at("conv2d_input_grad") +
         calls.at("conv2d_weight_grad");
}

void expect_same_on_any_threads(const OpCase& op, DType dtype, double product_tolerance) {
  const std::vector<Doubles> inputs = draw_inputs(op);
  const Slots slots = op.differentiable ? Slots::garbage : Slots::none;
  Runner runner(op, dtype, counting_kernels());
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const int64_t products = calls_of_products();
  const OpRun one = runner.run(inputs, slots);
  // Large products are the library's, which may share them out along the summed dimension.
  const double tolerance = calls_of_products() > products ? product_tolerance : 0.0;
  omp_set_num_threads(3);
  const OpRun three = runner.run(inputs, slots);
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
    Runner(op, DType::f32, counting_kernels()).run(draw_inputs(op), op.differentiable ? Slots::garbage : Slots::none);
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
