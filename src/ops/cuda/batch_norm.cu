// Batch normalisation: two sums per channel in double, by fixed groups of rows, then one pass over the elements.
#include "ops/cuda/activations.cuh"
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

/// What the normalisation is, channel by channel.
template <typename P>
struct Norm {
  const P *mean, *rstd, *weight, *bias;
  __device__ P normalised(P x, int64_t c) const { return (x - mean[c]) * rstd[c]; }
};

template <typename P>
Norm<P> norm_of(const Tensor& stats, const Tensor& weight, const Tensor& bias) {
  const P* mean = data_of<P>(stats);
  return {mean, mean + weight.elements(), data_of<P>(weight), data_of<P>(bias)};
}

template <typename T, typename P>
struct PlainAndSquare {
  const T* x;
  int64_t cols;
  __device__ void operator()(int64_t r, int64_t c, P& first, P& second) const {
    first = static_cast<P>(x[r * cols + c]);
    second = first * first;
  }
};

template <typename Function, typename T, typename P>
struct GradTerms {
  const T *dy, *x;
  Norm<P> norm;
  int64_t cols;
  __device__ void operator()(int64_t r, int64_t c, P& first, P& second) const {
    const P normalised = norm.normalised(static_cast<P>(x[r * cols + c]), c);
    first = static_cast<P>(dy[r * cols + c]) * Function::derivative(normalised * norm.weight[c] + norm.bias[c]);
    second = first * normalised;
  }
};

/// partial[group, 2, c]: see sum_row_groups() in column_sums.cuh.
template <typename P, typename Terms>
__global__ void sum_pairs_kernel(Terms terms, double* partial, int64_t rows, int64_t cols) {
  __shared__ double sums[2][kColumnLanes][33];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
  double first = 0, second = 0;
  if (c < cols)
    for (int64_t r = begin + threadIdx.y; r < end; r += kColumnLanes) {
      P a, b;
      terms(r, c, a, b);
      first += static_cast<double>(a);
      second += static_cast<double>(b);
    }
  sums[0][threadIdx.y][threadIdx.x] = first;
  sums[1][threadIdx.y][threadIdx.x] = second;
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
  for (int lane = 1; lane < kColumnLanes; ++lane) {
    first += sums[0][lane][threadIdx.x];
    second += sums[1][lane][threadIdx.x];
  }
  partial[(2 * blockIdx.y) * cols + c] = first;
  partial[(2 * blockIdx.y + 1) * cols + c] = second;
}

__global__ void add_pairs_kernel(double* sums, const double* partial, int64_t groups, int64_t rows, int64_t cols) {
  const int64_t i = thread_index();
  if (i == 2 * cols) sums[i] = static_cast<double>(rows);
  if (i >= 2 * cols) return;
  double sum = 0;
  for (int64_t g = 0; g < groups; ++g) sum += partial[2 * g * cols + i];
  sums[i] = sum;
}

template <typename P, typename Terms>
void sum_pairs(const Tensor& sums, const Terms& terms, int64_t rows, int64_t cols) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t groups = std::clamp<int64_t>(rows / kRowsPerGroup, 1, kMaxGroups);
  auto* partial =
      static_cast<double*>(context.scratch().allocate(static_cast<size_t>(2 * groups * cols) * sizeof(double)));
  launch(sum_pairs_kernel<P, Terms>, dim3(ceil_div(cols, 32), static_cast<unsigned>(groups)), dim3(32, kColumnLanes),
         terms, partial, rows, cols);
  launch(add_pairs_kernel, dim3(ceil_div(2 * cols + 1, kThreads)), kThreads, data_of<double>(sums), partial, groups,
         rows, cols);
}

template <typename P>
__global__ void statistics_kernel(P* stats, P* batch_sums, const double* sums, const P* mean, const P* var, double eps,
                                  int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  double m = 0, variance = 0;
  if (sums != nullptr) {
    const double n = sums[2 * cols];
    m = sums[c] / n;
    variance = sums[cols + c] / n - m * m;
    if (variance < 0) variance = 0;
    if (batch_sums != nullptr) {
      batch_sums[c] += static_cast<P>(m);
      batch_sums[cols + c] += static_cast<P>(variance * n / (n - 1));
    }
  } else {
    m = static_cast<double>(mean[c]);
    variance = static_cast<double>(var[c]);
  }
  stats[c] = static_cast<P>(m);
  stats[cols + c] = static_cast<P>(1 / sqrt(variance + eps));
}

template <typename Function, typename T, typename P>
__global__ void batch_norm_kernel(T* y, const T* x, Norm<P> norm, int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    y[i] = static_cast<T>(Function::value(norm.normalised(static_cast<P>(x[i]), c) * norm.weight[c] + norm.bias[c]));
  }
}

template <typename P>
__global__ void add_parameter_grads_kernel(P* dweight, int beta_w, P* dbias, int beta_b, const double* sums,
                                           int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  dbias[c] = static_cast<P>((beta_b != 0 ? static_cast<double>(dbias[c]) : 0.0) + sums[c]);
  dweight[c] = static_cast<P>((beta_w != 0 ? static_cast<double>(dweight[c]) : 0.0) + sums[cols + c]);
}

// dx may be dy.
template <typename Function, typename T, typename P>
__global__ void batch_norm_grad_kernel(T* dx, int beta, const T* dy, const T* x, Norm<P> norm, const double* sums,
                                       int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  P mean_g = 0, mean_product = 0;
  if (sums != nullptr) {
    mean_g = static_cast<P>(sums[c] / sums[2 * cols]);
    mean_product = static_cast<P>(sums[cols + c] / sums[2 * cols]);
  }
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const P normalised = norm.normalised(static_cast<P>(x[i]), c);
    const P g = static_cast<P>(dy[i]) * Function::derivative(normalised * norm.weight[c] + norm.bias[c]);
    const P d = norm.weight[c] * norm.rstd[c] * (g - mean_g - normalised * mean_product);
    dx[i] = static_cast<T>(beta != 0 ? static_cast<P>(dx[i]) + d : d);
  }
}

template <typename P>
__global__ void fold_kernel(P* scale, P* shift, const P* weight, const P* bias, const P* mean, const P* var, double eps,
                            int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const double factor = static_cast<double>(weight[c]) / sqrt(static_cast<double>(var[c]) + eps);
  scale[c] = static_cast<P>(factor);
  shift[c] = static_cast<P>(static_cast<double>(bias[c]) - static_cast<double>(mean[c]) * factor);
}

/// Rows by turns, but several for each thread: what it knows of its channel serves them all.
dim3 norm_grid(int64_t rows, int64_t cols) {
  return {ceil_div(cols, kThreads), static_cast<unsigned>(std::clamp<int64_t>(rows / 8, 1, 65535))};
}

/// f(T{}, P{}, Relu or another activation)
template <typename F>
void dispatch_norm(DType dtype, const FusedActivation& act, F&& f) {
  dispatch_float(dtype, [&](auto tag) {
    choose_fused(act, [&](auto function) { f(tag, ParameterOf<decltype(tag)>{}, function); });
  });
}

}  // namespace

void batch_norm_sums(const Tensor& sums, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    sum_pairs<P>(sums, PlainAndSquare<T, P>{data_of<T>(x), x.cols()}, x.rows(), x.cols());
  });
}

void batch_norm_statistics(const Tensor& stats, const Tensor& batch_sums, const Tensor& sums, const Tensor& mean,
                           const Tensor& var, double eps) {
  dispatch_parameter(stats.dtype, [&](auto tag) {
    using P = decltype(tag);
    launch(statistics_kernel<P>, dim3(ceil_div(stats.cols(), kThreads)), kThreads, data_of<P>(stats),
           data_of<P>(batch_sums), sums.defined() ? data_of<double>(sums) : nullptr, data_of<P>(mean), data_of<P>(var),
           eps, stats.cols());
  });
}

void batch_norm(const Tensor& y, const Tensor& x, const Tensor& stats, const Tensor& weight, const Tensor& bias,
                FusedActivation act) {
  dispatch_norm(x.dtype, act, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    launch(batch_norm_kernel<decltype(function), T, P>, norm_grid(x.rows(), x.cols()), kThreads, data_of<T>(y),
           data_of<T>(x), norm_of<P>(stats, weight, bias), x.rows(), x.cols());
  });
}

void batch_norm_grad_sums(const Tensor& sums, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                          const Tensor& dy, const Tensor& x, const Tensor& stats, const Tensor& weight,
                          const Tensor& bias, FusedActivation act) {
  dispatch_norm(x.dtype, act, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    const GradTerms<decltype(function), T, P> terms{data_of<T>(dy), data_of<T>(x), norm_of<P>(stats, weight, bias),
                                                    x.cols()};
    sum_pairs<P>(sums, terms, x.rows(), x.cols());
    launch(add_parameter_grads_kernel<P>, dim3(ceil_div(x.cols(), kThreads)), kThreads, data_of<P>(dweight), beta_w,
           data_of<P>(dbias), beta_b, data_of<double>(sums), x.cols());
  });
}

void batch_norm_grad(const Tensor& dx, int beta, const Tensor& dy, const Tensor& x, const Tensor& stats,
                     const Tensor& weight, const Tensor& bias, const Tensor& sums, FusedActivation act) {
  dispatch_norm(x.dtype, act, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    launch(batch_norm_grad_kernel<decltype(function), T, P>, norm_grid(x.rows(), x.cols()), kThreads, data_of<T>(dx),
           beta, data_of<T>(dy), data_of<T>(x), norm_of<P>(stats, weight, bias),
           sums.defined() ? data_of<double>(sums) : nullptr, x.rows(), x.cols());
  });
}

void batch_norm_fold(const Tensor& scale, const Tensor& shift, const Tensor& weight, const Tensor& bias,
                     const Tensor& mean, const Tensor& var, double eps) {
  dispatch_parameter(scale.dtype, [&](auto tag) {
    using P = decltype(tag);
    const int64_t cols = scale.elements();
    launch(fold_kernel<P>, dim3(ceil_div(cols, kThreads)), kThreads, data_of<P>(scale), data_of<P>(shift),
           data_of<P>(weight), data_of<P>(bias), data_of<P>(mean), data_of<P>(var), eps, cols);
  });
}

}  // namespace qn::cuda
