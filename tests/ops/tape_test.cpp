// Memory of gradients is given to the next ones once nobody reads it, and only then.
#include "ops/tape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "ops/ops.h"

namespace qn::test {
namespace {

class TapeMemory : public testing::Test {
 protected:
  static constexpr int64_t kRows = 3, kCols = 70;

  /// A result with the value 0, 1, 2, ..., whose step does nothing, and which the test reads in the end.
  Var leaf() {
    const Var x = tape_.result({kRows, kCols});
    for (int64_t i = 0; i < kRows * kCols; ++i) x.value.as<double>()[i] = static_cast<double>(i % 11) - 5.0;
    return x;
  }
  /// The gradient of the sum of y's elements.
  void start_from(const Var& y) { tape_.k.fill(tape_.slot(y).grad, 1.0); }

  Arena arena_{host_memory(), size_t{1} << 20};
  Tape tape_{cpu_kernels(), arena_, DType::f64, {.training = true, .recording = true}};
};

TEST_F(TapeMemory, AChainOfAnyLengthHasTwoGradients) {
  constexpr int kOps = 20;
  Var x = leaf();
  std::vector<Var> all{x};
  for (int i = 0; i < kOps; ++i) all.push_back(x = dropout(tape_, x, {0.5, static_cast<uint64_t>(i)}));
  start_from(x);
  tape_.backward();
  std::set<const void*> addresses;
  for (const Var& v : all) addresses.insert(v.slot->grad.data);
  EXPECT_EQ(addresses.size(), 2U);
}

/// x goes into both branches: its gradient is that of the sum, and those of the branches must not share memory while
/// both are needed. The residual sum passes its gradient on: the same memory is then that of two slots.
TEST_F(TapeMemory, WhatIsStillNeededIsNotGivenAway) {
  const Var x = leaf();
  const Var a = residual_dropout(tape_, x, x, {}, {});  // 2 x
  const Var b = residual_dropout(tape_, a, a, {}, {});  // 4 x
  const Var c = residual_dropout(tape_, b, x, {}, {});  // 5 x
  const Var d = residual_dropout(tape_, c, a, {}, {});  // 7 x
  const Var y = residual_dropout(tape_, d, normalize_rows(tape_, b), {}, {});
  start_from(y);
  tape_.backward();
  // Of 7 x + 4 x / |4 x| the gradient is 7 and what has no part along x.
  const double *g = x.slot->grad.as<double>(), *v = x.value.as<double>();
  for (int64_t r = 0; r < kRows; ++r) {
    double along = 0.0, squares = 0.0, sum = 0.0;
    for (int64_t i = r * kCols; i < (r + 1) * kCols; ++i) {
      squares += v[i] * v[i];
      sum += v[i];
      along += (g[i] - 7.0) * v[i];
    }
    EXPECT_NEAR(along, 0.0, 1e-9);
    for (int64_t i = r * kCols; i < (r + 1) * kCols; ++i)
      EXPECT_NEAR(g[i], 7.0 + (1.0 - v[i] * sum / squares) / std::sqrt(squares), 1e-9) << i;
  }
}

}  // namespace
}  // namespace qn::test
