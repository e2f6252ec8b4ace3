// Fills, sums and reductions over vectors and columns.
#include <algorithm>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {

void fill(const Tensor& x, double value) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* p = x.as<T>();
    parallel_chunks(x.elements(), [=](int64_t b, int64_t e) { std::fill(p + b, p + e, static_cast<T>(value)); });
  });
}

void copy(const Tensor& y, const Tensor& x) { axpy(y, x, 1.0, 0); }

void axpy(const Tensor& y, const Tensor& x, double scale, int beta) { masked_axpy(y, x, nullptr, scale, beta); }

void add_bias(const Tensor& y, int64_t column, const Tensor& bias) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto* b = bias.as<ParameterOf<T>>();
    const int64_t width = bias.elements(), ld = y.cols();
    T* base = y.as<T>() + column;
    parallel_rows(y.rows(), width, [=](int64_t r) {
      T* row = base + r * ld;
      for (int64_t c = 0; c < width; ++c) row[c] = static_cast<T>(row[c] + b[c]);
    });
  });
}

void bias_grad(const Tensor& dbias, const Tensor& dy, int64_t column, int beta) {
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t width = dbias.elements(), ld = dy.cols(), rows = dy.rows();
    const T* base = dy.as<T>() + column;
    P* out = dbias.as<P>();
    constexpr int64_t kStripe = 64;  // columns per task: every column is summed by one thread, in row order
    const int64_t stripes = (width + kStripe - 1) / kStripe;
#pragma omp parallel for schedule(static) if (rows * width > 16384)
    for (int64_t s = 0; s < stripes; ++s) {
      const int64_t begin = s * kStripe, n = std::min(kStripe, width - begin);
      P sums[kStripe] = {};
      for (int64_t r = 0; r < rows; ++r) {
        const T* row = base + r * ld + begin;
        for (int64_t c = 0; c < n; ++c) sums[c] += row[c];
      }
      for (int64_t c = 0; c < n; ++c) out[begin + c] = (beta != 0 ? out[begin + c] : P{0}) + sums[c];
    }
  });
}

void add_sum(double* total, const Tensor& x) {
  for (const double v : x.span<double>()) *total += v;
}

void sum_of_squares(double* result, const Tensor& x) {
  double total = 0.0;
  dispatch_parameter(x.dtype, [&](auto tag) {
    using P = decltype(tag);
    const P* p = x.as<P>();
    constexpr int64_t kPiece = 4096;
    const int64_t n = x.elements(), pieces = (n + kPiece - 1) / kPiece;
    std::vector<double> sums(static_cast<size_t>(pieces));
#pragma omp parallel for schedule(static) if (pieces > 8)
    for (int64_t i = 0; i < pieces; ++i) {
      double s = 0.0;
#pragma omp simd reduction(+ : s)
      for (int64_t j = i * kPiece; j < std::min(n, (i + 1) * kPiece); ++j)
        s += static_cast<double>(p[j]) * static_cast<double>(p[j]);
      sums[static_cast<size_t>(i)] = s;
    }
    for (const double s : sums) total += s;
  });
  *result = total;
}

}  // namespace qn::cpu
