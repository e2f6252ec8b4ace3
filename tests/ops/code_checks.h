// Products with matrices of codes against products with what the codes stand for, in double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "code_cases.h"
#include "core/half.h"
#include "op_runner.h"
#include "random_floats.h"

namespace qn::test {

/// x W^T or x W and, for the tolerance, the sum of the magnitudes that are added up.
struct Expected {
  std::vector<double> y, size;
};
inline Expected expected_product(const CodedMatrix& w, const std::vector<float>& x, int64_t m, bool transposed) {
  const CodeMatrix& view = w.weight().view();
  const int64_t in = transposed ? view.rows : view.cols, out = transposed ? view.cols : view.rows;
  Expected e{std::vector<double>(static_cast<size_t>(m * out)), std::vector<double>(static_cast<size_t>(m * out))};
  for (int64_t i = 0; i < m; ++i)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t l = 0; l < in; ++l) {
        const double term = static_cast<double>(x[static_cast<size_t>(i * in + l)]) *
                            w.dense()[static_cast<size_t>(transposed ? l * out + o : o * in + l)];
        e.y[static_cast<size_t>(i * out + o)] += term;
        e.size[static_cast<size_t>(i * out + o)] += std::abs(term);
      }
  return e;
}

/// What multiply() gives in columns [2, 2 + out) of a wider result, whose other columns must stay. `w` was made with
/// `kernels`; the tolerance is relative to the sum of magnitudes.
inline void check_product(const Kernels& kernels, const CodedMatrix& w, int64_t m, DType dtype, bool transposed,
                          double tolerance, const std::function<void(const CodeMatmulArgs&)>& multiply) {
  const CodeMatrix& view = w.weight().view();
  const int64_t in = transposed ? view.rows : view.cols, out = transposed ? view.cols : view.rows, width = out + 5;
  std::vector<float> x = random_floats(m * in, 1);
  for (float& v : x) {
    if (dtype == DType::bf16) v = static_cast<float>(bfloat16(v));
    if (dtype == DType::f16) v = half_to_float(float_to_half(v));
  }
  const OwnedTensor input({m, in}, dtype, *kernels.memory), output({m, width}, dtype, *kernels.memory);
  from_doubles(kernels, input.view(), {x.begin(), x.end()});
  kernels.fill(output.view(), 7.0);
  multiply({.weight = view, .x = input.view(), .y = output.view(), .column = 2, .transposed = transposed});
  const std::vector<double> y = to_doubles(kernels, output.view());
  const Expected e = expected_product(w, x, m, transposed);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t c = 0; c < width; ++c) {
      const double got = y[static_cast<size_t>(i * width + c)];
      if (c < 2 || c >= out + 2) {
        ASSERT_EQ(got, 7.0) << "column " << c;
        continue;
      }
      const auto place = static_cast<size_t>(i * out + c - 2);
      ASSERT_NEAR(got, e.y[place], tolerance * (e.size[place] + 1e-30)) << "row " << i << ", column " << c - 2;
    }
}

/// Inputs and results that do not fit the matrix, each in one thing.
inline void check_refusals(const Kernels& kernels) {
  const CodedMatrix w({.rows = 24, .cols = 16, .block = 8, .levels = 4}, kernels);
  const auto refused = [&](Shape x, Shape y, int64_t column, bool transposed, DType dtype = DType::f32) {
    const OwnedTensor input(x, DType::f32, *kernels.memory), output(y, dtype, *kernels.memory);
    const CodeMatmulArgs args{
        .weight = w.weight().view(), .x = input.view(), .y = output.view(), .column = column, .transposed = transposed};
    EXPECT_THROW(kernels.matmul_codes(args), InternalError)
        << x.to_string() << " to " << y.to_string() << " from column " << column << (transposed ? ", transposed" : "");
  };
  refused({2, 24}, {2, 24}, 0, false);
  refused({2, 16}, {2, 16}, 0, true);
  refused({2, 16}, {3, 24}, 0, false);
  refused({2, 16}, {2, 24}, 1, false);
  refused({2, 24}, {2, 16}, 1, true);
  refused({2, 16}, {2, 24}, 0, false, DType::bf16);
}

}  // namespace qn::test
