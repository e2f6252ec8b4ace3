// Batch normalisation: one reading for the statistics, one for the result; the backward likewise.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cpu/activations.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {
namespace {

/// totals[0 .. 2 C) (f64) = sums over rows of two terms per column, totals[2 C] = rows. add(sums, more, row) adds a
/// row's terms to sums [C] and more [C]: a few rows in P, then in double, by fixed groups of rows, so that neither
/// large means nor the number of threads matter.
template <typename P, typename F>
void sum_columns(double* totals, int64_t rows, int64_t channels, const F& add) {
  constexpr int64_t kRows = 32;
  const int64_t groups = std::clamp<int64_t>(rows / kRows, 1, 32);
  static thread_local std::vector<double> scratch;
  double* partial = zeros(scratch, groups * 2 * channels);
#pragma omp parallel for schedule(static) if (rows * channels > 16384)
  for (int64_t g = 0; g < groups; ++g) {
    static thread_local std::vector<P> few_scratch;
    P* few = at_least(few_scratch, 2 * channels);
    double* sums = partial + g * 2 * channels;
    const int64_t end = rows * (g + 1) / groups;
    for (int64_t r = rows * g / groups; r < end;) {
      std::fill_n(few, 2 * channels, P{0});
      for (const int64_t stop = std::min(r + kRows, end); r < stop; ++r) add(few, few + channels, r);
      for (int64_t i = 0; i < 2 * channels; ++i) sums[i] += static_cast<double>(few[i]);
    }
  }
  for (int64_t i = 0; i < 2 * channels; ++i) {
    double sum = 0.0;
    for (int64_t g = 0; g < groups; ++g) sum += partial[g * 2 * channels + i];
    totals[i] = sum;
  }
  totals[2 * channels] = static_cast<double>(rows);
}

/// What the normalisation is, channel by channel.
template <typename P>
struct Norm {
  const P *mean, *rstd, *weight, *bias;
  Norm(const Tensor& stats, const Tensor& w, const Tensor& b)
      : mean(stats.as<P>()), rstd(mean + w.elements()), weight(w.as<P>()), bias(b.as<P>()) {}
  P normalised(P x, int64_t c) const { return (x - mean[c]) * rstd[c]; }
};

constexpr int64_t kPiece = 256;

/// f(first, n) for pieces of a row. Loops that compute in P and loops that round to T vectorise; both in one do not.
template <typename F>
void for_pieces(int64_t channels, F&& f) {
  for (int64_t first = 0; first < channels; first += kPiece) f(first, std::min(kPiece, channels - first));
}

}  // namespace

void batch_norm_sums(const Tensor& sums, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t channels = x.cols();
    const T* in = x.as<T>();
    sum_columns<P>(sums.as<double>(), x.rows(), channels, [=](P* plain, P* squares, int64_t r) {
      const T* row = in + r * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const P v = row[c];
        plain[c] += v;
        squares[c] += v * v;
      }
    });
  });
}

void batch_norm_statistics(const Tensor& stats, const Tensor& batch_sums, const Tensor& sums, const Tensor& mean,
                           const Tensor& var, double eps) {
  dispatch_parameter(stats.dtype, [&](auto tag) {
    using P = decltype(tag);
    const int64_t channels = stats.cols();
    P* out = stats.as<P>();
    const double* totals = sums.defined() ? sums.as<double>() : nullptr;
    for (int64_t c = 0; c < channels; ++c) {
      double m = 0.0, variance = 0.0;
      if (totals != nullptr) {
        const double n = totals[2 * channels];
        m = totals[c] / n;
        variance = std::max(totals[channels + c] / n - m * m, 0.0);
        if (batch_sums.defined()) {
          batch_sums.as<P>()[c] += static_cast<P>(m);
          batch_sums.as<P>()[channels + c] += static_cast<P>(variance * n / (n - 1.0));
        }
      } else {
        m = static_cast<double>(mean.as<P>()[c]);
        variance = static_cast<double>(var.as<P>()[c]);
      }
      out[c] = static_cast<P>(m);
      out[channels + c] = static_cast<P>(1.0 / std::sqrt(variance + eps));
    }
  });
}

void batch_norm(const Tensor& y, const Tensor& x, const Tensor& stats, const Tensor& weight, const Tensor& bias,
                FusedActivation act) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    dispatch_fused(act, [&](auto function) {
      const int64_t channels = x.cols();
      const Norm<P> norm(stats, weight, bias);
      const T* in = x.as<T>();
      T* out = y.as<T>();
      parallel_rows(x.rows(), channels, [=](int64_t r) {
        for_pieces(channels, [&](int64_t first, int64_t n) {
          P values[kPiece];
          const T* row = in + r * channels;
#pragma omp simd
          for (int64_t c = first; c < first + n; ++c)
            values[c - first] = function.value(norm.normalised(row[c], c) * norm.weight[c] + norm.bias[c]);
          for (int64_t i = 0; i < n; ++i) out[r * channels + first + i] = static_cast<T>(values[i]);
        });
      });
    });
  });
}

void batch_norm_grad_sums(const Tensor& sums, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                          const Tensor& dy, const Tensor& x, const Tensor& stats, const Tensor& weight,
                          const Tensor& bias, FusedActivation act) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t channels = x.cols();
    dispatch_fused(act, [&](auto function) {
      const Norm<P> norm(stats, weight, bias);
      const T *in = x.as<T>(), *grad = dy.as<T>();
      sum_columns<P>(sums.as<double>(), x.rows(), channels, [=](P* plain, P* products, int64_t r) {
        const T *row = in + r * channels, *grad_row = grad + r * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
          const P normalised = norm.normalised(row[c], c);
          const P g = grad_row[c] * function.derivative(normalised * norm.weight[c] + norm.bias[c]);
          plain[c] += g;
          products[c] += g * normalised;
        }
      });
    });
    const double* totals = sums.as<double>();
    P *dw = dweight.as<P>(), *db = dbias.as<P>();
    for (int64_t c = 0; c < channels; ++c) {
      db[c] = static_cast<P>((beta_b != 0 ? static_cast<double>(db[c]) : 0.0) + totals[c]);
      dw[c] = static_cast<P>((beta_w != 0 ? static_cast<double>(dw[c]) : 0.0) + totals[channels + c]);
    }
  });
}

void batch_norm_grad(const Tensor& dx, int beta, const Tensor& dy, const Tensor& x, const Tensor& stats,
                     const Tensor& weight, const Tensor& bias, const Tensor& sums, FusedActivation act) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t channels = x.cols();
    std::vector<P> means(static_cast<size_t>(2 * channels), P{0});
    if (sums.defined())
      for (int64_t i = 0; i < 2 * channels; ++i)
        means[static_cast<size_t>(i)] = static_cast<P>(sums.as<double>()[i] / sums.as<double>()[2 * channels]);
    dispatch_fused(act, [&](auto function) {
      const Norm<P> norm(stats, weight, bias);
      const P *mean_g = means.data(), *mean_product = mean_g + channels;
      const T *in = x.as<T>(), *grad = dy.as<T>();
      T* out = dx.as<T>();
      parallel_rows(x.rows(), channels, [=](int64_t r) {
        for_pieces(channels, [&](int64_t first, int64_t n) {
          P values[kPiece];
          const T *row = in + r * channels, *grad_row = grad + r * channels;
          T* to = out + r * channels + first;
#pragma omp simd
          for (int64_t c = first; c < first + n; ++c) {
            const P normalised = norm.normalised(row[c], c);
            const P g = grad_row[c] * function.derivative(normalised * norm.weight[c] + norm.bias[c]);
            values[c - first] = norm.weight[c] * norm.rstd[c] * (g - mean_g[c] - normalised * mean_product[c]);
          }
          if (beta != 0)
            for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(to[i] + values[i]);
          else
            for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(values[i]);
        });
      });
    });
  });
}

void batch_norm_fold(const Tensor& scale, const Tensor& shift, const Tensor& weight, const Tensor& bias,
                     const Tensor& mean, const Tensor& var, double eps) {
  dispatch_parameter(scale.dtype, [&](auto tag) {
    using P = decltype(tag);
    for (int64_t c = 0; c < scale.elements(); ++c) {
      const double factor =
          static_cast<double>(weight.as<P>()[c]) / std::sqrt(static_cast<double>(var.as<P>()[c]) + eps);
      scale.as<P>()[c] = static_cast<P>(factor);
      shift.as<P>()[c] =
          static_cast<P>(static_cast<double>(bias.as<P>()[c]) - static_cast<double>(mean.as<P>()[c]) * factor);
    }
  });
}

}  // namespace qn::cpu
