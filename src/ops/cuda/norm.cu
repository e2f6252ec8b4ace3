// Layer normalisation, and the sums over rows that gradients of biases and norms are.
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"
#include "ops/norm_limits.h"

namespace qn::cuda {
namespace {

// One block per row.
template <typename T, typename P>
__global__ void layer_norm_kernel(T* y, P* means, P* rstds, const T* x, const P* weight, const P* bias, P eps,
                                  int64_t cols) {
  const int64_t row = blockIdx.x;
  x += row * cols;
  y += row * cols;
  P sum = 0;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) sum += static_cast<P>(x[c]);
  const P mean = block_sum(sum) / static_cast<P>(cols);
  P squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P centred = static_cast<P>(x[c]) - mean;
    squares += centred * centred;
  }
  const P rstd = P{1} / sqrt(block_sum(squares) / static_cast<P>(cols) + eps);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
    y[c] = static_cast<T>((static_cast<P>(x[c]) - mean) * rstd * weight[c] + bias[c]);
  if (threadIdx.x == 0) {
    means[row] = mean;
    rstds[row] = rstd;
  }
}

template <typename T, typename P>
__global__ void layer_norm_dx_kernel(T* dx, int beta, const T* dy, const T* x, const P* means, const P* rstds,
                                     const P* weight, int64_t cols) {
  const int64_t row = blockIdx.x;
  const P mean = means[row], rstd = rstds[row];
  dx += row * cols;
  dy += row * cols;
  x += row * cols;
  P sum_g = 0, sum_gx = 0;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P g = static_cast<P>(dy[c]) * weight[c];
    sum_g += g;
    sum_gx += g * (static_cast<P>(x[c]) - mean) * rstd;
  }
  const P a = block_sum(sum_g) / static_cast<P>(cols), b = block_sum(sum_gx) / static_cast<P>(cols);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P normalised = (static_cast<P>(x[c]) - mean) * rstd;
    const P g = rstd * (static_cast<P>(dy[c]) * weight[c] - a - normalised * b);
    dx[c] = static_cast<T>(beta != 0 ? static_cast<P>(dx[c]) + g : g);
  }
}

template <typename T, typename P>
__global__ void normalize_rows_kernel(T* y, P* inverses, const T* x, P smallest, int64_t cols) {
  const int64_t row = blockIdx.x;
  x += row * cols;
  y += row * cols;
  P squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) squares += static_cast<P>(x[c]) * static_cast<P>(x[c]);
  const P norm = sqrt(block_sum(squares));
  const P inverse = P{1} / (norm > smallest ? norm : smallest);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) y[c] = static_cast<T>(static_cast<P>(x[c]) * inverse);
  if (threadIdx.x == 0) inverses[row] = inverse;
}

template <typename T, typename P>
__global__ void normalize_rows_grad_kernel(T* dx, int beta, const T* dy, const T* y, const P* inverses, int64_t cols) {
  const int64_t row = blockIdx.x;
  dx += row * cols;
  dy += row * cols;
  y += row * cols;
  P sum = 0;
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) sum += static_cast<P>(y[c]) * static_cast<P>(dy[c]);
  const P along = block_sum(sum);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P g = inverses[row] * (static_cast<P>(dy[c]) - static_cast<P>(y[c]) * along);
    dx[c] = static_cast<T>(beta != 0 ? static_cast<P>(dx[c]) + g : g);
  }
}

/// Shares of one element in the gradients of weight and bias.
template <typename T, typename P>
struct WeightTerm {
  const T *dy, *x;
  const P *means, *rstds;
  int64_t cols;
  __device__ P operator()(int64_t r, int64_t c) const {
    return static_cast<P>(dy[r * cols + c]) * (static_cast<P>(x[r * cols + c]) - means[r]) * rstds[r];
  }
};
template <typename T, typename P>
struct PlainTerm {
  const T* dy;
  int64_t ld;
  __device__ P operator()(int64_t r, int64_t c) const { return static_cast<P>(dy[r * ld + c]); }
};

}  // namespace

void layer_norm(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x, const Tensor& weight,
                const Tensor& bias, double eps) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(layer_norm_kernel<T, P>, dim3(static_cast<unsigned>(x.rows())), kThreads, data_of<T>(y), data_of<P>(mean),
           data_of<P>(rstd), data_of<T>(x), data_of<P>(weight), data_of<P>(bias), static_cast<P>(eps), x.cols());
  });
}

void layer_norm_grad(const Tensor& dx, int beta_x, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                     const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t rows = x.rows(), cols = x.cols();
    const WeightTerm<T, P> weight_term{data_of<T>(dy), data_of<T>(x), data_of<P>(mean), data_of<P>(rstd), cols};
    column_sums(data_of<P>(dweight), weight_term, rows, cols, beta_w);
    column_sums(data_of<P>(dbias), PlainTerm<T, P>{data_of<T>(dy), cols}, rows, cols, beta_b);
    launch(layer_norm_dx_kernel<T, P>, dim3(static_cast<unsigned>(rows)), kThreads, data_of<T>(dx), beta_x,
           data_of<T>(dy), data_of<T>(x), data_of<P>(mean), data_of<P>(rstd), data_of<P>(weight), cols);
  });
}

void normalize_rows(const Tensor& y, const Tensor& inverse, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(normalize_rows_kernel<T, P>, dim3(static_cast<unsigned>(x.rows())), kThreads, data_of<T>(y),
           data_of<P>(inverse), data_of<T>(x), static_cast<P>(kSmallestNorm), x.cols());
  });
}

void normalize_rows_grad(const Tensor& dx, int beta, const Tensor& dy, const Tensor& y, const Tensor& inverse) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(normalize_rows_grad_kernel<T, P>, dim3(static_cast<unsigned>(y.rows())), kThreads, data_of<T>(dx), beta,
           data_of<T>(dy), data_of<T>(y), data_of<P>(inverse), y.cols());
  });
}

void bias_grad(const Tensor& dbias, const Tensor& dy, int64_t column, int beta) {
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    column_sums(data_of<P>(dbias), PlainTerm<T, P>{data_of<T>(dy) + column, dy.cols()}, dy.rows(), dbias.elements(),
                beta);
  });
}

}  // namespace qn::cuda
