// Losses over a vocabulary: one block per row, the largest logit and the sum of exponentials in one pass.
#include <cfloat>

#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/mma.cuh"
#include "ops/cuda/packs.cuh"
#include "ops/cuda/reduce.cuh"

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

/// exp(x) for x <= 0. Of logits in 16 bits nobody notices two units in the last place.
template <typename T, typename P>
__device__ P exp_of(P x) {
  if constexpr (sizeof(T) == 2)
    return fast_exp2(x * kLog2OfE);
  else
    return exp(x);
}

/// Takes N more numbers into a sum.
template <typename T, typename P, int N>
__device__ void take(ExpSum<P>& total, const P (&v)[N]) {
  P max = total.max;
#pragma unroll
  for (int j = 0; j < N; ++j) max = v[j] > max ? v[j] : max;
  if (max > total.max) {
    total.sum *= exp_of<T>(total.max - max);
    total.max = max;
  }
#pragma unroll
  for (int j = 0; j < N; ++j) total.sum += exp_of<T>(v[j] - max);
}

/// Calls f(pack, c) for the columns of a row that are the thread's, by a block per row: with packs of N, then with
/// those of one that are left.
template <int N, typename F>
__device__ void for_each_pack(int64_t cols, F f) {
  const int64_t whole = cols / N * N;
  for (int64_t c = static_cast<int64_t>(threadIdx.x) * N; c < whole; c += static_cast<int64_t>(blockDim.x) * N)
    f(std::integral_constant<int, N>{}, c);
  if (N > 1 && whole + threadIdx.x < cols) f(std::integral_constant<int, 1>{}, whole + threadIdx.x);
}

/// log of the sum of exp(x[c]) over the row, and its parts.
template <int N, typename T, typename P>
__device__ ExpSum<P> row_exp_sum(const T* x, int64_t cols) {
  ExpSum<P> own{lowest<P>(), 0};
  for_each_pack<N>(cols, [&](auto pack, int64_t c) {
    P v[decltype(pack)::value];
    load_pack(v, x + c);
    take<T>(own, v);
  });
  const P max = block_max(own.max);
  return {max, block_sum(own.sum * exp_of<T>(own.max - max))};
}

/// What the gradient takes off the probabilities of the target and of all other classes.
template <typename P>
struct Shares {
  P target, other;
};

/// The row's logits, of which the target's was `chosen`, become gradients.
template <int N, typename T, typename P>
__device__ void write_gradient(T* x, int64_t cols, const ExpSum<P>& total, int32_t target, P chosen, P scale,
                               const Shares<P>& shares) {
  const P inverse = P{1} / total.sum;
  for_each_pack<N>(cols, [&](auto pack, int64_t c) {
    constexpr int kN = decltype(pack)::value;
    P v[kN];
    load_pack(v, x + c);
#pragma unroll
    for (int j = 0; j < kN; ++j) v[j] = exp_of<T>(v[j] - total.max) * inverse;
#pragma unroll
    for (int j = 0; j < kN; ++j) v[j] = scale * (v[j] - shares.other);
    store_pack(x + c, v);
  });
  // The thread that has just written the target's writes it once more.
  const int64_t whole = cols / N * N;
  const int64_t owner = target < whole ? target / N % blockDim.x : target - whole;
  if (threadIdx.x == owner)
    x[target] = static_cast<T>(scale * (exp_of<T>(chosen - total.max) * inverse - shares.target));
}

// One block per row, whose first `cols` columns are logits.
template <int N, typename T, typename P>
__global__ void cross_entropy_kernel(double* losses, T* logits, const int32_t* targets, const int32_t* rows,
                                     int64_t cols, int64_t ld, double smoothing, bool write_grad,
                                     const double* grad_scale) {
  const int64_t row = blockIdx.x;
  T* x = logits + row * ld;
  const int32_t target = targets[row];
  if (write_grad)
    for (int64_t c = (target < 0 ? 0 : cols) + threadIdx.x; c < ld; c += blockDim.x) x[c] = static_cast<T>(P{0});
  if (target < 0) return;
  const P chosen = static_cast<P>(x[target]);  // read before the gradient takes its place
  const ExpSum<P> total = row_exp_sum<N, T, P>(x, cols);
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
  write_gradient<N>(x, cols, total, target, chosen, grad_scale != nullptr ? static_cast<P>(*grad_scale) : P{1},
                    {static_cast<P>(1.0 - smoothing), static_cast<P>(other)});
}

// y may be x.
template <typename Y, typename X, typename P>
__global__ void log_softmax_kernel(Y* y, const X* x, int64_t cols, int64_t ld) {
  const int64_t row = blockIdx.x;
  x += row * ld;
  y += row * cols;
  const ExpSum<P> total = row_exp_sum<1, X, P>(x, cols);
  const P shift = total.max + log(total.sum);
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) y[c] = static_cast<Y>(static_cast<P>(x[c]) - shift);
}

}  // namespace

void cross_entropy(const Tensor& losses, const Tensor& logits, int64_t classes, const int32_t* targets,
                   const int32_t* rows, double smoothing, bool write_grad, const double* grad_scale) {
  dispatch_float(logits.dtype, [&](auto tag) {
    using T = decltype(tag);
    dispatch_pack<kPackOf<T>>({logits.cols()}, {logits.data}, [&](auto pack) {
      launch(cross_entropy_kernel<decltype(pack)::value, T, ParameterOf<T>>, dim3(static_cast<unsigned>(logits.rows())),
             kThreads, data_of<double>(losses), data_of<T>(logits), targets, rows, classes, logits.cols(), smoothing,
             write_grad, grad_scale);
    });
  });
}

void log_softmax(const Tensor& y, const Tensor& x) {
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    launch(log_softmax_kernel<Y, X, ParameterOf<X>>, dim3(static_cast<unsigned>(x.rows())), kThreads, data_of<Y>(y),
           data_of<X>(x), y.cols(), x.cols());
  });
}

}  // namespace qn::cuda
