#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/norm_limits.h"

namespace qn::cpu {

void layer_norm(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x, const Tensor& weight,
                const Tensor& bias, double eps) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t d = x.cols();
    const T* xs = x.as<T>();
    const P *w = weight.as<P>(), *b = bias.as<P>();
    T* ys = y.as<T>();
    P *means = mean.as<P>(), *rstds = rstd.as<P>();
    parallel_rows(x.rows(), d, [=](int64_t r) {
      const T* in = xs + r * d;
      P sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < d; ++c) sum += in[c];
      const P m = sum / static_cast<P>(d);
      P squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t c = 0; c < d; ++c) squares += (in[c] - m) * (in[c] - m);
      const P inv = P{1} / std::sqrt(squares / static_cast<P>(d) + static_cast<P>(eps));
      T* out = ys + r * d;
      for (int64_t c = 0; c < d; ++c) out[c] = static_cast<T>((in[c] - m) * inv * w[c] + b[c]);
      means[r] = m;
      rstds[r] = inv;
    });
  });
}

namespace {

/// Input gradient of one row; adds the row's share to the parameter gradients.
template <typename T, typename P>
void norm_grad_row(T* dx, int beta, P* dw, P* db, const T* dy, const T* x, P mean, P rstd, const P* w, int64_t d) {
  P sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
  for (int64_t c = 0; c < d; ++c) {
    const P normalised = (x[c] - mean) * rstd;
    const P g = dy[c] * w[c];
    sum_g += g;
    sum_gx += g * normalised;
    dw[c] += dy[c] * normalised;
    db[c] += dy[c];
  }
  const P a = sum_g / static_cast<P>(d), b = sum_gx / static_cast<P>(d);
  for (int64_t c = 0; c < d; ++c) {
    const P g = rstd * (dy[c] * w[c] - a - (x[c] - mean) * rstd * b);
    dx[c] = static_cast<T>(beta != 0 ? dx[c] + g : g);
  }
}

}  // namespace

void layer_norm_grad(const Tensor& dx, int beta_x, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                     const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t d = x.cols(), rows = x.rows();
    // Parameter gradients: partial sums per fixed group of rows, added in group order, so that the number of threads
    // does not matter.
    constexpr int64_t kGroups = 16;
    static thread_local std::vector<P> partial;
    partial.assign(static_cast<size_t>(2 * kGroups * d), P{0});
    P* sums = partial.data();
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (int64_t g = 0; g < kGroups; ++g)
      for (int64_t r = rows * g / kGroups; r < rows * (g + 1) / kGroups; ++r)
        norm_grad_row(dx.as<T>() + r * d, beta_x, sums + 2 * g * d, sums + (2 * g + 1) * d, dy.as<T>() + r * d,
                      x.as<T>() + r * d, mean.as<P>()[r], rstd.as<P>()[r], weight.as<P>(), d);
    P *dw = dweight.as<P>(), *db = dbias.as<P>();
    for (int64_t c = 0; c < d; ++c) {
      P w = beta_w != 0 ? dw[c] : P{0}, b = beta_b != 0 ? db[c] : P{0};
      for (int64_t g = 0; g < kGroups; ++g) {
        w += sums[2 * g * d + c];
        b += sums[(2 * g + 1) * d + c];
      }
      dw[c] = w;
      db[c] = b;
    }
  });
}

void normalize_rows(const Tensor& y, const Tensor& inverse, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t d = x.cols();
    const T* xs = x.as<T>();
    T* ys = y.as<T>();
    P* inverses = inverse.as<P>();
    parallel_rows(x.rows(), d, [=](int64_t r) {
      const T* in = xs + r * d;
      P squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t c = 0; c < d; ++c) squares += in[c] * in[c];
      const P inv = P{1} / std::max(std::sqrt(squares), static_cast<P>(kSmallestNorm));
      for (int64_t c = 0; c < d; ++c) ys[r * d + c] = static_cast<T>(in[c] * inv);
      inverses[r] = inv;
    });
  });
}

void normalize_rows_grad(const Tensor& dx, int beta, const Tensor& dy, const Tensor& y, const Tensor& inverse) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t d = y.cols();
    const T *ys = y.as<T>(), *dys = dy.as<T>();
    const P* inverses = inverse.as<P>();
    T* dxs = dx.as<T>();
    parallel_rows(y.rows(), d, [=](int64_t r) {
      const T *out = ys + r * d, *grad = dys + r * d;
      P along = 0;
#pragma omp simd reduction(+ : along)
      for (int64_t c = 0; c < d; ++c) along += out[c] * grad[c];
      T* into = dxs + r * d;
      for (int64_t c = 0; c < d; ++c) {
        const P g = inverses[r] * (grad[c] - out[c] * along);
        into[c] = static_cast<T>(beta != 0 ? into[c] + g : g);
      }
    });
  });
}

}  // namespace qn::cpu
