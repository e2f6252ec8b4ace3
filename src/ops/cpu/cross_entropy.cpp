#include <cmath>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/exp.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {
namespace {

template <typename T>
T row_max(const T* x, int64_t n) {
  T m = x[0];
#pragma omp simd reduction(max : m)
  for (int64_t c = 1; c < n; ++c) m = x[c] > m ? x[c] : m;
  return m;
}

template <typename T>
T row_exp_sum(const T* x, T max, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; ++c) sum += exp_nonpositive(x[c] - max);
  return sum;
}

}  // namespace

void cross_entropy(const Tensor& losses, const Tensor& logits, const int32_t* targets, const int32_t* rows,
                   bool write_grad) {
  auto* loss = losses.as<double>();
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = logits.cols();
    T* base = logits.as<T>();
    parallel_rows(logits.rows(), n, [=](int64_t r) {
      T* x = base + r * n;
      const int32_t target = targets[r];
      if (target < 0) {
        if (write_grad) std::fill(x, x + n, T{0});
        return;
      }
      const T max = row_max(x, n), sum = row_exp_sum(x, max, n);
      loss[rows != nullptr ? rows[r] : r] += static_cast<double>(std::log(sum) + max - x[target]);
      if (!write_grad) return;
      const T inverse = T{1} / sum;
      for (int64_t c = 0; c < n; ++c) x[c] = exp_nonpositive(x[c] - max) * inverse;
      x[target] -= T{1};
    });
  });
}

void log_softmax(const Tensor& y, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = x.cols();
    const T* in = x.as<T>();
    T* out = y.as<T>();
    parallel_rows(x.rows(), n, [=](int64_t r) {
      const T* from = in + r * n;
      const T max = row_max(from, n);
      const T shift = max + std::log(row_exp_sum(from, max, n));
      for (int64_t c = 0; c < n; ++c) out[r * n + c] = from[c] - shift;
    });
  });
}

}  // namespace qn::cpu
