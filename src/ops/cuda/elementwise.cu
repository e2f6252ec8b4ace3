// Fills, sums, dropout and activations, element by element.
#include "ops/cuda/activations.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

/// Whether element i is kept; `bits` as keep_bits() leaves them, or nullptr to keep all.
__device__ bool kept(const uint32_t* bits, int64_t i) {
  return bits == nullptr || ((bits[i / 32] >> (i % 32)) & 1U) != 0;
}

const uint32_t* halves(const uint64_t* bits) { return reinterpret_cast<const uint32_t*>(bits); }

template <typename T>
__global__ void fill_kernel(T* x, T value, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) x[i] = value;
}

template <typename Y, typename X, typename P>
__global__ void masked_axpy_kernel(Y* y, const X* x, const uint32_t* bits, P scale, int beta, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const P start = beta != 0 ? static_cast<P>(y[i]) : P{0};
    y[i] = static_cast<Y>(start + (kept(bits, i) ? scale : P{0}) * static_cast<P>(x[i]));
  }
}

template <typename T, typename P>
__global__ void add_bias_kernel(T* y, const P* bias, int64_t rows, int64_t width, int64_t ld) {
  const int64_t c = thread_index();
  if (c >= width) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
    y[r * ld + c] = static_cast<T>(static_cast<P>(y[r * ld + c]) + bias[c]);
}

template <typename T, typename P>
__global__ void residual_kernel(T* y, const T* residual, const T* x, const P* bias, const uint32_t* bits, P scale,
                                int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const P b = bias != nullptr ? bias[c] : P{0};
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    y[i] = static_cast<T>(static_cast<P>(residual[i]) + (kept(bits, i) ? scale : P{0}) * (static_cast<P>(x[i]) + b));
  }
}

template <typename Function, typename T, typename P>
__global__ void activation_kernel(T* y, const T* x, const P* bias, const uint32_t* bits, P scale, int64_t rows,
                                  int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const P b = bias != nullptr ? bias[c] : P{0};
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    y[i] = static_cast<T>((kept(bits, i) ? scale : P{0}) * Function::value(static_cast<P>(x[i]) + b));
  }
}

// dx may be dy.
template <typename Function, typename T, typename P>
__global__ void activation_grad_kernel(T* dx, const T* dy, const T* x, const P* bias, const uint32_t* bits, P scale,
                                       int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const P b = bias != nullptr ? bias[c] : P{0};
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const P slope = Function::derivative(static_cast<P>(x[i]) + b);
    dx[i] = static_cast<T>((kept(bits, i) ? scale : P{0}) * slope * static_cast<P>(dy[i]));
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
    launch(masked_axpy_kernel<Y, X, P>, flat_grid(y.elements()), kThreads, data_of<Y>(y), data_of<X>(x), halves(bits),
           static_cast<P>(scale), beta, y.elements());
  });
}

void add_bias(const Tensor& y, int64_t column, const Tensor& bias) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(add_bias_kernel<T, P>, matrix_grid(y.rows(), bias.elements()), kThreads, data_of<T>(y) + column,
           data_of<P>(bias), y.rows(), bias.elements(), y.cols());
  });
}

void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias, const uint64_t* bits,
                  double scale) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(residual_kernel<T, P>, matrix_grid(y.rows(), y.cols()), kThreads, data_of<T>(y), data_of<T>(residual),
           data_of<T>(x), data_of<P>(bias), halves(bits), static_cast<P>(scale), y.rows(), y.cols());
  });
}

void activation(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                double scale) {
  dispatch_activation(y.dtype, kind, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    launch(activation_kernel<decltype(function), T, P>, matrix_grid(y.rows(), y.cols()), kThreads, data_of<T>(y),
           data_of<T>(x), data_of<P>(bias), halves(bits), static_cast<P>(scale), y.rows(), y.cols());
  });
}

void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                     const uint64_t* bits, double scale) {
  dispatch_activation(dx.dtype, kind, [&](auto tag, auto parameter, auto function) {
    using T = decltype(tag);
    using P = decltype(parameter);
    launch(activation_grad_kernel<decltype(function), T, P>, matrix_grid(dx.rows(), dx.cols()), kThreads,
           data_of<T>(dx), data_of<T>(dy), data_of<T>(x), data_of<P>(bias), halves(bits), static_cast<P>(scale),
           dx.rows(), dx.cols());
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
