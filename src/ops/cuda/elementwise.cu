// Fills, sums, dropout and activations, element by element, in packs of 16 bytes where tensors allow it.
#include "ops/cuda/activations.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/packs.cuh"

namespace qn::cuda {
namespace {

const uint32_t* halves(const uint64_t* bits) { return reinterpret_cast<const uint32_t*>(bits); }

template <typename T>
__global__ void fill_kernel(T* x, T value, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) x[i] = value;
}

/// What element j of a pack counts, by its keep bits.
template <typename P>
__device__ P weight_of(uint32_t kept, int j, P scale) {
  return (kept >> j & 1U) != 0 ? scale : P{0};
}

// n is a number of whole packs.
template <int N, typename Y, typename X, typename P>
__global__ void masked_axpy_kernel(Y* y, const X* x, const uint32_t* bits, P scale, int beta, int64_t n) {
  for (int64_t i = thread_index() * N; i < n; i += thread_count() * N) {
    P sum[N] = {}, term[N];
    load_pack(term, x + i);
    if (beta != 0) load_pack(sum, y + i);
    const uint32_t kept = kept_pack<N>(bits, i);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += weight_of(kept, j, scale) * term[j];
    store_pack(y + i, sum);
  }
}

template <int N, typename T, typename P>
__global__ void add_bias_kernel(T* y, const P* bias, int64_t rows, int64_t width, int64_t ld) {
  const int64_t c = thread_index() * N;
  if (c >= width) return;
  P b[N], x[N];
  load_pack(b, bias + c);
  for (int64_t r = first_row(); r < rows; r += row_step()) {
    load_pack(x, y + r * ld + c);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += b[j];
    store_pack(y + r * ld + c, x);
  }
}

/// What the kernels below do to x before anything else. Without a bias it is zeros.
template <int N, typename P>
__device__ void load_bias(P (&b)[N], const P* bias, int64_t c) {
  if (bias != nullptr) return load_pack(b, bias + c);
#pragma unroll
  for (int j = 0; j < N; ++j) b[j] = P{0};
}

template <int N, typename T, typename P>
__global__ void residual_kernel(T* y, const T* residual, const T* x, const P* bias, const uint32_t* bits, P scale,
                                int64_t rows, int64_t cols) {
  const int64_t c = thread_index() * N;
  if (c >= cols) return;
  P b[N], sum[N], term[N];
  load_bias(b, bias, c);
  for (int64_t r = first_row(); r < rows; r += row_step()) {
    const int64_t i = r * cols + c;
    load_pack(sum, residual + i);
    load_pack(term, x + i);
    const uint32_t kept = kept_pack<N>(bits, i);
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += weight_of(kept, j, scale) * (term[j] + b[j]);
    store_pack(y + i, sum);
  }
}

template <int N, typename Function, typename T, typename P>
__global__ void activation_kernel(T* y, const T* x, const P* bias, const uint32_t* bits, P scale, int64_t rows,
                                  int64_t cols) {
  const int64_t c = thread_index() * N;
  if (c >= cols) return;
  P b[N], value[N];
  load_bias(b, bias, c);
  for (int64_t r = first_row(); r < rows; r += row_step()) {
    const int64_t i = r * cols + c;
    load_pack(value, x + i);
    const uint32_t kept = kept_pack<N>(bits, i);
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] = weight_of(kept, j, scale) * Function::value(value[j] + b[j]);
    store_pack(y + i, value);
  }
}

// dx may be dy.
template <int N, typename Function, typename T, typename P>
__global__ void activation_grad_kernel(T* dx, const T* dy, const T* x, const P* bias, const uint32_t* bits, P scale,
                                       int64_t rows, int64_t cols) {
  const int64_t c = thread_index() * N;
  if (c >= cols) return;
  P b[N], value[N], grad[N];
  load_bias(b, bias, c);
  for (int64_t r = first_row(); r < rows; r += row_step()) {
    const int64_t i = r * cols + c;
    load_pack(value, x + i);
    load_pack(grad, dy + i);
    const uint32_t kept = kept_pack<N>(bits, i);
#pragma unroll
    for (int j = 0; j < N; ++j) grad[j] *= weight_of(kept, j, scale) * Function::derivative(value[j] + b[j]);
    store_pack(dx + i, grad);
  }
}

/// f(T{}, P{}, Relu or another activation)
template <typename F>
void dispatch_activation(DType dtype, Activation kind, F&& f) {
  dispatch_float(dtype, [&](auto tag) {
    choose_activation(kind, [&](auto function) { f(tag, ParameterOf<decltype(tag)>{}, function); });
  });
}

}  // namespace

void fill(const Tensor& x, double value) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T converted = static_cast<T>(static_cast<ParameterOf<T>>(value));
    launch(fill_kernel<T>, flat_grid(x.elements()), kThreads, data_of<T>(x), converted, x.elements());
  });
}

void copy(const Tensor& y, const Tensor& x) { masked_axpy(y, x, nullptr, 1.0, 0); }

void axpy(const Tensor& y, const Tensor& x, double scale, int beta) { masked_axpy(y, x, nullptr, scale, beta); }

void masked_axpy(const Tensor& y, const Tensor& x, const uint64_t* bits, double scale, int beta) {
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    constexpr int kPack = std::max(kPackOf<Y>, kPackOf<X>);
    dispatch_pack<kPack>({y.elements()}, {y.data, x.data}, [&](auto pack) {
      constexpr int kN = decltype(pack)::value;
      launch(masked_axpy_kernel<kN, Y, X, P>, flat_grid(y.elements() / kN), kThreads, data_of<Y>(y), data_of<X>(x),
             halves(bits), static_cast<P>(scale), beta, y.elements());
    });
  });
}

void add_bias(const Tensor& y, int64_t column, const Tensor& bias) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto add = [&](auto pack, int64_t begin, int64_t width) {
      constexpr int kN = decltype(pack)::value;
      launch(add_bias_kernel<kN, T, P>, pack_grid(y.rows(), width / kN), pack_block(width / kN),
             data_of<T>(y) + column + begin, data_of<P>(bias) + begin, y.rows(), width, y.cols());
    };
    dispatch_columns<kPackOf<T>>(bias.elements(), {y.cols(), column}, {y.data, bias.data}, add);
  });
}

void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias, const uint64_t* bits,
                  double scale) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    dispatch_pack<kPackOf<T>>({y.cols()}, {y.data, residual.data, x.data, bias.data}, [&](auto pack) {
      constexpr int kN = decltype(pack)::value;
      launch(residual_kernel<kN, T, P>, pack_grid(y.rows(), y.cols() / kN), pack_block(y.cols() / kN), data_of<T>(y),
             data_of<T>(residual), data_of<T>(x), data_of<P>(bias), halves(bits), static_cast<P>(scale), y.rows(),
             y.cols());
    });
  });
}

void activation(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                double scale) {
  dispatch_activation(y.dtype, kind, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    dispatch_pack<kPackOf<T>>({y.cols()}, {y.data, x.data, bias.data}, [&](auto pack) {
      constexpr int kN = decltype(pack)::value;
      launch(activation_kernel<kN, decltype(function), T, P>, pack_grid(y.rows(), y.cols() / kN),
             pack_block(y.cols() / kN), data_of<T>(y), data_of<T>(x), data_of<P>(bias), halves(bits),
             static_cast<P>(scale), y.rows(), y.cols());
    });
  });
}

void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                     const uint64_t* bits, double scale) {
  dispatch_activation(dx.dtype, kind, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    dispatch_pack<kPackOf<T>>({dx.cols()}, {dx.data, dy.data, x.data, bias.data}, [&](auto pack) {
      constexpr int kN = decltype(pack)::value;
      launch(activation_grad_kernel<kN, decltype(function), T, P>, pack_grid(dx.rows(), dx.cols() / kN),
             pack_block(dx.cols() / kN), data_of<T>(dx), data_of<T>(dy), data_of<T>(x), data_of<P>(bias), halves(bits),
             static_cast<P>(scale), dx.rows(), dx.cols());
    });
  });
}

bool has_code_for_device() {
  cudaFuncAttributes attributes{};
  void (*const kernel)(float*, float, int64_t) = fill_kernel<float>;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel));
  cudaGetLastError();
  return status == cudaSuccess;
}

}  // namespace qn::cuda
