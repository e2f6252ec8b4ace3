// Layer normalisation, and the sums over rows that gradients of biases and norms are.
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/types.cuh"
#include "ops/norm_limits.h"

namespace qn::cuda {
namespace {

/// Calls f(c) for the packs of a row that are the thread's, by a block per row; with kOne that is one at most.
template <int N, bool kOne, typename F>
__device__ void for_each_pack(int64_t cols, F f) {
  const int64_t first = static_cast<int64_t>(threadIdx.x) * N;
  if constexpr (kOne) {
    if (first < cols) f(first);
  } else {
    for (int64_t c = first; c < cols; c += static_cast<int64_t>(blockDim.x) * N) f(c);
  }
}

/// A block for a row of so many packs.
inline unsigned row_threads(int64_t packs) {
  return static_cast<unsigned>(std::clamp<int64_t>((packs + 31) / 32 * 32, 32, kThreads));
}

// One block per row; with kOne, threads read their packs once.
template <int N, bool kOne, typename T, typename P>
__global__ void layer_norm_kernel(T* y, P* means, P* rstds, const T* x, const P* weight, const P* bias, P eps,
                                  int64_t cols) {
  const int64_t row = blockIdx.x;
  x += row * cols;
  y += row * cols;
  P v[N];
  if (kOne) for_each_pack<N, kOne>(cols, [&](int64_t c) { load_pack(v, x + c); });
  const auto load = [&](int64_t c) {
    if (!kOne) load_pack(v, x + c);
  };
  P sum = 0;
  for_each_pack<N, kOne>(cols, [&](int64_t c) {
    load(c);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += v[j];
  });
  const P mean = block_sum(sum) / static_cast<P>(cols);
  P squares = 0;
  for_each_pack<N, kOne>(cols, [&](int64_t c) {
    load(c);
#pragma unroll
    for (int j = 0; j < N; ++j) squares += (v[j] - mean) * (v[j] - mean);
  });
  const P rstd = P{1} / sqrt(block_sum(squares) / static_cast<P>(cols) + eps);
  for_each_pack<N, kOne>(cols, [&](int64_t c) {
    load(c);
    P w[N], b[N], out[N];
    load_pack(w, weight + c);
    load_pack(b, bias + c);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = (v[j] - mean) * rstd * w[j] + b[j];
    store_pack(y + c, out);
  });
  if (threadIdx.x == 0) {
    means[row] = mean;
    rstds[row] = rstd;
  }
}

// As above.
template <int N, bool kOne, typename T, typename P>
__global__ void layer_norm_dx_kernel(T* dx, int beta, const T* dy, const T* x, const P* means, const P* rstds,
                                     const P* weight, int64_t cols) {
  const int64_t row = blockIdx.x;
  const P mean = means[row], rstd = rstds[row];
  dx += row * cols;
  dy += row * cols;
  x += row * cols;
  P g[N], normalised[N];  // gradients of what the weight is multiplied by
  const auto read = [&](int64_t c) {
    P w[N];
    load_pack(g, dy + c);
    load_pack(normalised, x + c);
    load_pack(w, weight + c);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      g[j] *= w[j];
      normalised[j] = (normalised[j] - mean) * rstd;
    }
  };
  if (kOne) for_each_pack<N, kOne>(cols, read);
  const auto load = [&](int64_t c) {
    if (!kOne) read(c);
  };
  P sum_g = 0, sum_gx = 0;
  for_each_pack<N, kOne>(cols, [&](int64_t c) {
    load(c);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sum_g += g[j];
      sum_gx += g[j] * normalised[j];
    }
  });
  const P a = block_sum(sum_g) / static_cast<P>(cols), b = block_sum(sum_gx) / static_cast<P>(cols);
  for_each_pack<N, kOne>(cols, [&](int64_t c) {
    load(c);
    P out[N] = {};
    if (beta != 0) load_pack(out, dx + c);
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] += rstd * (g[j] - a - normalised[j] * b);
    store_pack(dx + c, out);
  });
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

/// Shares of a row in the gradients of weight and bias.
template <typename T, typename P>
struct NormTerms {
  const T *dy, *x;
  const P *means, *rstds;
  int64_t cols;
  template <int N>
  __device__ void add(P (&sums)[2][N], int64_t r, int64_t c) const {
    P g[N], v[N];
    load_pack(g, dy + r * cols + c);
    load_pack(v, x + r * cols + c);
    const P mean = means[r], rstd = rstds[r];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sums[0][j] += g[j] * (v[j] - mean) * rstd;
      sums[1][j] += g[j];
    }
  }
};
template <typename T, typename P>
struct PlainTerm {
  const T* x;
  int64_t ld;
  template <int N>
  __device__ void add(P (&sums)[1][N], int64_t r, int64_t c) const {
    P v[N];
    load_pack(v, x + r * ld + c);
#pragma unroll
    for (int j = 0; j < N; ++j) sums[0][j] += v[j];
  }
};

/// f(N, kOne) as constants for rows of these tensors, and the number of threads for a row.
template <typename T, typename F>
void dispatch_rows(int64_t cols, std::initializer_list<const void*> places, F&& f) {
  dispatch_pack<kPackOf<T>>({cols}, places, [&](auto pack) {
    constexpr int kN = decltype(pack)::value;
    const unsigned threads = row_threads(cols / kN);
    if (cols <= static_cast<int64_t>(threads) * kN)
      f(pack, std::true_type{}, threads);
    else
      f(pack, std::false_type{}, threads);
  });
}

}  // namespace

void layer_norm(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x, const Tensor& weight,
                const Tensor& bias, double eps) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    dispatch_rows<T>(x.cols(), {y.data, x.data, weight.data, bias.data}, [&](auto pack, auto one, unsigned threads) {
      launch(layer_norm_kernel<decltype(pack)::value, decltype(one)::value, T, P>,
             dim3(static_cast<unsigned>(x.rows())), threads, data_of<T>(y), data_of<P>(mean), data_of<P>(rstd),
             data_of<T>(x), data_of<P>(weight), data_of<P>(bias), static_cast<P>(eps), x.cols());
    });
  });
}

void layer_norm_grad(const Tensor& dx, int beta_x, const Tensor& dweight, int beta_w, const Tensor& dbias, int beta_b,
                     const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t rows = x.rows(), cols = x.cols();
    dispatch_rows<T>(cols, {dx.data, dy.data, x.data, weight.data}, [&](auto pack, auto one, unsigned threads) {
      constexpr int kN = decltype(pack)::value;
      column_sums<kN, 2>(SumsOut<P, 2>{{data_of<P>(dweight), data_of<P>(dbias)}, {beta_w, beta_b}},
                         NormTerms<T, P>{data_of<T>(dy), data_of<T>(x), data_of<P>(mean), data_of<P>(rstd), cols}, rows,
                         cols);
      launch(layer_norm_dx_kernel<kN, decltype(one)::value, T, P>, dim3(static_cast<unsigned>(rows)), threads,
             data_of<T>(dx), beta_x, data_of<T>(dy), data_of<T>(x), data_of<P>(mean), data_of<P>(rstd),
             data_of<P>(weight), cols);
    });
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
    dispatch_columns<kPackOf<T>>(
        dbias.elements(), {dy.cols(), column}, {dy.data}, [&](auto pack, int64_t begin, int64_t width) {
          column_sums<decltype(pack)::value, 1>(SumsOut<P, 1>{{data_of<P>(dbias) + begin}, {beta}},
                                                PlainTerm<T, P>{data_of<T>(dy) + column + begin, dy.cols()}, dy.rows(),
                                                width);
        });
  });
}

}  // namespace qn::cuda
