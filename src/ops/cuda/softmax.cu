// Losses over a vocabulary: one block per row, the largest logit and the sum of exponentials in one pass.
#include <cfloat>

#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

/// A sum of exponentials as sum * exp(max). `max` starts at the lowest finite number, not at -infinity: the difference
/// of two empty sums' maxima must not be NaN.
template <typename P>
struct ExpSum {
  P max, sum;
};

template <typename P>
__device__ P lowest() {
  if constexpr (sizeof(P) == 8)
    return -DBL_MAX;
  else
    return -FLT_MAX;
}

/// log of the sum of exp(x[c]) over the row, and its parts.
template <typename T, typename P>
__device__ ExpSum<P> row_exp_sum(const T* x, int64_t cols) {
  ExpSum<P> own{lowest<P>(), 0};
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P v = static_cast<P>(x[c]);
    if (v > own.max) {
      own.sum = own.sum * exp(own.max - v) + P{1};
      own.max = v;
    } else {
      own.sum += exp(v - own.max);
    }
  }
  const P max = block_max(own.max);
  return {max, block_sum(own.sum * exp(own.max - max))};
}

template <typename T, typename P>
__global__ void cross_entropy_kernel(double* losses, T* logits, const int32_t* targets, const int32_t* rows,
                                     int64_t cols, double smoothing, bool write_grad, const double* grad_scale) {
  const int64_t row = blockIdx.x;
  T* x = logits + row * cols;
  const int32_t target = targets[row];
  if (target < 0) {
    if (write_grad)
      for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) x[c] = static_cast<T>(P{0});
    return;
  }
  const P chosen = static_cast<P>(x[target]);  // read before the gradient takes its place
  const ExpSum<P> total = row_exp_sum<T, P>(x, cols);
  const P log_sum = log(total.sum) + total.max;
  const double other = smoothing > 0.0 ? smoothing / static_cast<double>(cols - 1) : 0.0;  // share of another class
  double all = 0.0;                                                                        // classes' losses
  if (smoothing > 0.0) {
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) all += static_cast<double>(log_sum - static_cast<P>(x[c]));
    all = block_sum(all);
  }
  if (threadIdx.x == 0)
    losses[rows != nullptr ? rows[row] : row] +=
        smoothing > 0.0 ? (1.0 - smoothing - other) * static_cast<double>(log_sum - chosen) + other * all
                        : static_cast<double>(log_sum - chosen);
  if (!write_grad) return;
  const P target_share = static_cast<P>(1.0 - smoothing), other_share = static_cast<P>(other);
  const P inverse = P{1} / total.sum, scale = grad_scale != nullptr ? static_cast<P>(*grad_scale) : P{1};
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    const P p = exp(static_cast<P>(x[c]) - total.max) * inverse;
    x[c] = static_cast<T>(scale * (p - (c == target ? target_share : other_share)));
  }
}

// y may be x.
template <typename Y, typename X, typename P>
__global__ void log_softmax_kernel(Y* y, const X* x, int64_t cols) {
  const int64_t row = blockIdx.x;
  const ExpSum<P> total = row_exp_sum<X, P>(x + row * cols, cols);
  const P shift = total.max + log(total.sum);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x)
    y[row * cols + c] = static_cast<Y>(static_cast<P>(x[row * cols + c]) - shift);
}

}  // namespace

void cross_entropy(const Tensor& losses, const Tensor& logits, const int32_t* targets, const int32_t* rows,
                   double smoothing, bool write_grad, const double* grad_scale) {
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch(cross_entropy_kernel<T, ParameterOf<T>>, dim3(static_cast<unsigned>(logits.rows())), kThreads,
           data_of<double>(losses), data_of<T>(logits), targets, rows, logits.cols(), smoothing, write_grad,
           grad_scale);
  });
}

void log_softmax(const Tensor& y, const Tensor& x) {
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    launch(log_softmax_kernel<Y, X, ParameterOf<X>>, dim3(static_cast<unsigned>(x.rows())), kThreads, data_of<Y>(y),
           data_of<X>(x), x.cols());
  });
}

}  // namespace qn::cuda
