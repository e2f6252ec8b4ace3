#include <cmath>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {
namespace {

template <typename T, typename P = ParameterOf<T>>
P row_max(const T* x, int64_t n) {
  P m = x[0];
#pragma omp simd reduction(max : m)
  for (int64_t c = 1; c < n; ++c) {
    const P v = x[c];
    m = v > m ? v : m;
  }
  return m;
}

template <typename T, typename P = ParameterOf<T>>
P row_exp_sum(const T* x, P max, int64_t n) {
  P sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) sum += exp_nonpositive(x[c] - max);
  return sum;
}

template <typename T>
double row_sum(const T* x, int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) sum += static_cast<double>(x[c]);
  return sum;
}

/// Shares of the target and of every other class in the loss.
template <typename P>
struct Shares {
  P target, other;
};

/// Logits of a row become the gradient of its loss.
template <typename T, typename P = ParameterOf<T>>
void row_gradient(T* x, P max, P sum, int32_t target, int64_t n, P scale, const Shares<P>& shares) {
  const P inverse = P{1} / sum, share = exp_nonpositive(x[target] - max) * inverse, factor = scale * inverse;
  if (shares.other == P{0})
    for (int64_t c = 0; c < n; ++c) x[c] = static_cast<T>(exp_nonpositive(x[c] - max) * factor);
  else
    for (int64_t c = 0; c < n; ++c) x[c] = static_cast<T>(exp_nonpositive(x[c] - max) * factor - scale * shares.other);
  // Not from the rounded probability: near 1 nothing of the gradient would be left.
  x[target] = static_cast<T>(scale * (share - shares.target));
}

}  // namespace

void cross_entropy(const Tensor& losses, const Tensor& logits, int64_t classes, const int32_t* targets,
                   const int32_t* rows, double smoothing, bool write_grad, const double* grad_scale) {
  auto* loss = losses.as<double>();
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto scale = static_cast<P>(grad_scale != nullptr ? *grad_scale : 1.0);
    const int64_t n = classes, ld = logits.cols();
    const double other = smoothing > 0.0 ? smoothing / static_cast<double>(n - 1) : 0.0;
    const Shares<P> shares{static_cast<P>(1.0 - smoothing), static_cast<P>(other)};
    T* base = logits.as<T>();
    parallel_rows(logits.rows(), n, [=](int64_t r) {
      T* x = base + r * ld;
      if (write_grad) std::fill(x + n, x + ld, T{});
      const int32_t target = targets[r];
      if (target < 0) {
        if (write_grad) std::fill(x, x + n, T{});
        return;
      }
      const auto max = row_max(x, n), sum = row_exp_sum(x, max, n);
      double own = static_cast<double>(std::log(sum) + max - x[target]);
      if (smoothing > 0.0) {
        const double all = static_cast<double>(n) * static_cast<double>(std::log(sum) + max) - row_sum(x, n);
        own = (1.0 - smoothing - other) * own + other * all;
      }
      loss[rows != nullptr ? rows[r] : r] += own;
      if (write_grad) row_gradient(x, max, sum, target, n, scale, shares);
    });
  });
}

void log_softmax(const Tensor& y, const Tensor& x) {
  dispatch_pair(y.dtype, x.dtype, [&](auto y_tag, auto x_tag) {
    using Y = decltype(y_tag);
    using X = decltype(x_tag);
    const int64_t n = y.cols(), ld = x.cols();
    const X* in = x.as<X>();
    Y* out = y.as<Y>();
    parallel_rows(x.rows(), n, [=](int64_t r) {
      const X* from = in + r * ld;
      const auto max = row_max(from, n);
      const auto shift = max + std::log(row_exp_sum(from, max, n));
      for (int64_t c = 0; c < n; ++c) out[r * n + c] = static_cast<Y>(from[c] - shift);
    });
  });
}

}  // namespace qn::cpu
