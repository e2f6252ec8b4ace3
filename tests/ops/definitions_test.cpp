// What the ops compute, on numbers that can be checked by hand. (The op table shows that gradients fit the values and
// float fits double; it cannot see a value that is wrong everywhere.)
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "ops/ops.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using Doubles = std::vector<double>;
using Ids = std::vector<int32_t>;

class Definitions : public testing::Test {
 protected:
  Var in(Shape shape, const Doubles& values) {
    const Tensor t = tape_.tensor(shape);
    std::copy(values.begin(), values.end(), t.as<double>());
    return {t, nullptr};
  }
  static void expect(const Var& actual, const Shape& shape, const Doubles& values) {
    EXPECT_EQ(actual.value.shape, shape) << actual.value.shape.to_string();
    EXPECT_TRUE(close(actual.value.span<double>(), values, kDoubleTolerance));
  }

  Arena arena_;
  Tape tape_{cpu_kernels(), arena_, DType::f64, {}};
};

TEST_F(Definitions, Linear) {
  const Var x = in({2, 2}, {1, 2, 3, 4}), w = in({3, 2}, {1, 0, 0, 10, 1, 1}), b = in({3}, {100, 200, 300});
  expect(linear(tape_, x, w, b), {2, 3}, {101, 220, 303, 103, 240, 307});
  expect(linear_transposed(tape_, x, in({2, 3}, {1, 0, 2, 0, 10, 0})), {2, 3}, {1, 20, 2, 3, 40, 6});
  const std::array weights{w, in({1, 2}, {5, 0})}, biases{b, in({1}, {7})};
  expect(linear_concat(tape_, x, weights, biases), {2, 4}, {101, 220, 303, 12, 103, 240, 307, 22});
}

TEST_F(Definitions, LayerNorm) {
  const double r = 1 / std::sqrt(1.0 + 1e-5);  // variance 1
  expect(layer_norm(tape_, in({1, 2}, {4, 6}), in({2}, {10, 20}), in({2}, {1, 2})), {1, 2}, {1 - 10 * r, 2 + 20 * r});
  const double wide = 1 / std::sqrt(1.0 + 3.0);
  expect(layer_norm(tape_, in({1, 2}, {4, 6}), in({2}, {10, 20}), in({2}, {1, 2}), 3.0), {1, 2},
         {1 - 10 * wide, 2 + 20 * wide});
  expect(normalize_rows(tape_, in({3, 2}, {3, -4, 0, 0, 0, 2})), {3, 2}, {0.6, -0.8, 0, 0, 0, 1});
}

TEST_F(Definitions, LayerNormOfAnInputHasGradients) {
  tape_.restart({.recording = true});
  const std::vector<float> values{4, 6};
  GradientSlot dw{{nullptr, {}, DType::f64}}, db{{nullptr, {}, DType::f64}};
  const Var w{in({2}, {10, 20}).value, &dw}, b{in({2}, {1, 2}).value, &db};
  cross_entropy(tape_, layer_norm(tape_, input(tape_, values, {1, 2}), w, b), Ids{1});
  tape_.backward();
  // Normalised, the input is -1 and 1; the softmax of logits 31 apart is 0 and 1 but for exp(-31).
  const double p = std::exp(-31.0);
  EXPECT_NEAR(db.grad.as<double>()[0], p, 1e-2 * p);
  EXPECT_NEAR(dw.grad.as<double>()[0], -p, 1e-2 * p);
}

TEST_F(Definitions, ElementWise) {
  const Var x = in({1, 3}, {-1, 0, 2}), residual = in({1, 3}, {10, 20, 30});
  expect(residual_dropout(tape_, residual, x, {}, {0.5, 1}), {1, 3}, {9, 20, 32});
  const Var bias = in({3}, {1, 2, -3});
  expect(residual_dropout(tape_, residual, x, bias, {0.5, 1}), {1, 3}, {10, 22, 29});
  expect(activation_dropout(tape_, x, bias, Activation::relu, {0.5, 1}), {1, 3}, {0, 2, 0});
  expect(activation_dropout(tape_, x, {}, Activation::relu, {0.5, 1}), {1, 3}, {0, 0, 2});
  // x Phi(x) with the exact normal distribution, Phi(2) = 0.977249868051821
  expect(activation_dropout(tape_, x, {}, Activation::gelu, {0.5, 1}), {1, 3},
         {-0.158655253931457, 0, 1.954499736103642});
  // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
  expect(activation_dropout(tape_, x, {}, Activation::gelu_tanh, {0.5, 1}), {1, 3},
         {-0.15880800939172324, 0, 1.954597694087775});
}

TEST_F(Definitions, Rows) {
  const Var table = in({3, 2}, {1, 2, 3, 4, 5, 6});
  expect(embedding(tape_, table, Ids{2, 0, 2}, 10.0, 1), {3, 2}, {50, 60, 10, 20, 50, 60});
  expect(select_rows(tape_, table, Ids{1}), {1, 2}, {3, 4});
  expect(add_positions(tape_, table, in({2, 2}, {100, 200, 300, 400}), Ids{1, 0, 1}, 0), {3, 2},
         {301, 402, 103, 204, 305, 406});
  const Ids one{2, 0}, two{1};
  const std::array parts{RowPart{in({2, 2}, {1, 2, 3, 4}), one}, RowPart{in({1, 2}, {5, 6}), two}};
  expect(assemble_rows(tape_, 3, 2, parts, 10.0), {3, 2}, {30, 40, 50, 60, 10, 20});
}

TEST_F(Definitions, CrossEntropyAddsToTheNamedRows) {
  const Tensor losses = arena_.tensor({4}, DType::f64);
  tape_.k.fill(losses, 0.5);
  const Var logits = in({3, 2}, {std::log(1.0), std::log(3.0), 7, 8, 1000, 1000});
  cross_entropy(tape_, losses, logits, 2, Ids{0, -1, 1}, Ids{3, 1, 0});
  expect({losses, nullptr}, {4}, {0.5 + std::log(2.0), 0.5, 0.5, 0.5 + std::log(4.0)});
}

TEST_F(Definitions, CrossEntropyOfAllRows) {
  const Var logits = in({2, 2}, {std::log(1.0), std::log(3.0), 1000, 1000});
  expect({cross_entropy(tape_, logits, Ids{0, 1}), nullptr}, {2}, {std::log(4.0), std::log(2.0)});
}

TEST_F(Definitions, SmoothLabelsGiveEveryOtherWordItsShare) {
  const Var logits = in({1, 3}, {std::log(1.0), std::log(3.0), std::log(4.0)});
  const double expected = 0.8 * std::log(8.0 / 3.0) + 0.1 * std::log(8.0) + 0.1 * std::log(2.0);
  expect({cross_entropy(tape_, logits, Ids{1}, 0.2), nullptr}, {1}, {expected});
}

TEST_F(Definitions, InputHasTheTypeOfActivations) {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  expect(input(tape_, values, {2, 3}), {2, 3}, {1, 2, 3, 4, 5, 6});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tape tape(cpu_kernels(), arena_, dtype, {});
    const Var x = input(tape, values, {2, 3});
    EXPECT_EQ(x.value.dtype, dtype);
    EXPECT_EQ(x.value.shape, (Shape{2, 3}));
    const Tensor back = tape.parameter_tensor({2, 3});
    tape.k.copy(back, x.value);
    EXPECT_TRUE(std::ranges::equal(back.span<float>(), values));
  }
  EXPECT_THROW(input(tape_, values, {2, 2}), Error);
}

TEST_F(Definitions, LogSoftmax) {
  const Var x = in({1, 3}, {std::log(1.0), std::log(2.0), std::log(5.0)});
  tape_.k.log_softmax(x.value, x.value);
  expect(x, {1, 3}, {std::log(0.125), std::log(0.25), std::log(0.625)});
}

TEST_F(Definitions, PqWeightReadsCodesByBlockColumn) {
  const std::vector<uint16_t> codes{0, 1, 2, 0};  // rows 0 and 1 of block column 0, then of block column 1
  expect(pq_weight(tape_, in({3, 2}, {1, 2, 3, 4, 5, 6}), codes.data(), nullptr, {2, 4}), {2, 4},
         {1, 2, 5, 6, 3, 4, 1, 2});
}

TEST_F(Definitions, SumsAndSteps) {
  const Var x = in({3}, {1, -2, 3});
  double squares = 7.0;
  tape_.k.sum_of_squares(&squares, x.value);
  EXPECT_DOUBLE_EQ(squares, 14.0);
  std::vector<double> terms{1, 2, 4};
  tape_.k.add_sum(&squares, view_of(terms.data(), {3}));
  EXPECT_DOUBLE_EQ(squares, 21.0);
  const Var y = in({3}, {10, 20, 30});
  tape_.k.axpy(y.value, x.value, 2.0, 1);
  expect(y, {3}, {12, 16, 36});
  tape_.k.axpy(y.value, x.value, 2.0, 0);
  expect(y, {3}, {2, -4, 6});
}

}  // namespace
}  // namespace qn::test
