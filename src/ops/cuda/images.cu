// Pooling, scaled channels and stochastic depth.
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

struct ImageSizes {
  int64_t batch, pixels, channels;
};

ImageSizes sizes_of(const Tensor& x) {
  QN_ASSERT(x.shape.rank() == 4, "{} is no batch of images", x.shape.to_string());
  return {x.shape[0], x.shape[1] * x.shape[2], x.shape[3]};
}

/// For kernels that add up the pixels of an image: 32 channels per block, kColumnLanes pixels side by side.
dim3 image_grid(const ImageSizes& sizes) { return {ceil_div(sizes.channels, 32), static_cast<unsigned>(sizes.batch)}; }
dim3 image_block() { return {32, kColumnLanes}; }

/// The sum over the block's lanes of a column, in the first lane.
template <typename P>
__device__ P sum_of_lanes(P sum) {
  __shared__ P sums[kColumnLanes][33];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0)
    for (int lane = 1; lane < kColumnLanes; ++lane) sum += sums[lane][threadIdx.x];
  return sum;
}

template <typename T, typename P>
__global__ void average_pool_kernel(T* y, const T* x, ImageSizes sizes) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x, b = blockIdx.y;
  P sum = 0;
  if (c < sizes.channels)
    for (int64_t p = threadIdx.y; p < sizes.pixels; p += kColumnLanes)
      sum += static_cast<P>(x[(b * sizes.pixels + p) * sizes.channels + c]);
  sum = sum_of_lanes(sum);
  if (threadIdx.y == 0 && c < sizes.channels)
    y[b * sizes.channels + c] = static_cast<T>(sum / static_cast<P>(sizes.pixels));
}

template <typename T, typename P>
__global__ void average_pool_grad_kernel(T* dx, const T* dy, ImageSizes sizes, int beta) {
  const int64_t c = thread_index();
  if (c >= sizes.channels) return;
  for (int64_t r = blockIdx.y; r < sizes.batch * sizes.pixels; r += gridDim.y) {
    const int64_t i = r * sizes.channels + c;
    const P g = static_cast<P>(dy[r / sizes.pixels * sizes.channels + c]) / static_cast<P>(sizes.pixels);
    dx[i] = static_cast<T>(beta != 0 ? static_cast<P>(dx[i]) + g : g);
  }
}

template <typename T, typename P>
__global__ void scale_channels_kernel(T* y, const T* x, const T* s, ImageSizes sizes) {
  const int64_t c = thread_index();
  if (c >= sizes.channels) return;
  for (int64_t r = blockIdx.y; r < sizes.batch * sizes.pixels; r += gridDim.y) {
    const int64_t i = r * sizes.channels + c;
    y[i] = static_cast<T>(static_cast<P>(x[i]) * static_cast<P>(s[r / sizes.pixels * sizes.channels + c]));
  }
}

// dx may be dy.
template <typename T, typename P>
__global__ void scale_channels_grad_kernel(T* dx, int beta_x, T* ds, int beta_s, const T* dy, const T* x, const T* s,
                                           ImageSizes sizes) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x, b = blockIdx.y;
  const int64_t at = b * sizes.channels + c;
  P sum = 0;
  if (c < sizes.channels) {
    const P scale = static_cast<P>(s[at]);
    for (int64_t p = threadIdx.y; p < sizes.pixels; p += kColumnLanes) {
      const int64_t i = (b * sizes.pixels + p) * sizes.channels + c;
      const P g = static_cast<P>(dy[i]);
      sum += g * static_cast<P>(x[i]);
      dx[i] = static_cast<T>(beta_x != 0 ? static_cast<P>(dx[i]) + g * scale : g * scale);
    }
  }
  sum = sum_of_lanes(sum);
  if (threadIdx.y == 0 && c < sizes.channels) ds[at] = static_cast<T>(beta_s != 0 ? static_cast<P>(ds[at]) + sum : sum);
}

// y may be residual or x.
template <typename T, typename P>
__global__ void scale_samples_kernel(T* y, const T* residual, const T* x, const uint64_t* bits, P scale, int64_t n,
                                     int64_t each) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    const int64_t b = i / each;
    const bool kept = bits == nullptr || ((bits[b / 64] >> (b % 64)) & 1U) != 0;
    const P start = residual != nullptr ? static_cast<P>(residual[i]) : P{0};
    y[i] = static_cast<T>(start + (kept ? scale : P{0}) * static_cast<P>(x[i]));
  }
}

}  // namespace

void average_pool(const Tensor& y, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ImageSizes sizes = sizes_of(x);
    launch(average_pool_kernel<T, ParameterOf<T>>, image_grid(sizes), image_block(), data_of<T>(y), data_of<T>(x),
           sizes);
  });
}

void average_pool_grad(const Tensor& dx, const Tensor& dy, int beta) {
  dispatch_float(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ImageSizes sizes = sizes_of(dx);
    launch(average_pool_grad_kernel<T, ParameterOf<T>>, matrix_grid(dx.rows(), dx.cols()), kThreads, data_of<T>(dx),
           data_of<T>(dy), sizes, beta);
  });
}

void scale_channels(const Tensor& y, const Tensor& x, const Tensor& s) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ImageSizes sizes = sizes_of(x);
    launch(scale_channels_kernel<T, ParameterOf<T>>, matrix_grid(x.rows(), x.cols()), kThreads, data_of<T>(y),
           data_of<T>(x), data_of<T>(s), sizes);
  });
}

void scale_channels_grad(const Tensor& dx, int beta_x, const Tensor& ds, int beta_s, const Tensor& dy, const Tensor& x,
                         const Tensor& s) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const ImageSizes sizes = sizes_of(x);
    launch(scale_channels_grad_kernel<T, ParameterOf<T>>, image_grid(sizes), image_block(), data_of<T>(dx), beta_x,
           data_of<T>(ds), beta_s, data_of<T>(dy), data_of<T>(x), data_of<T>(s), sizes);
  });
}

void scale_samples(const Tensor& y, const Tensor& residual, const Tensor& x, const uint64_t* bits, double scale) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t n = x.elements();
    if (n == 0) return;
    launch(scale_samples_kernel<T, P>, flat_grid(n), kThreads, data_of<T>(y), data_of<T>(residual), data_of<T>(x), bits,
           static_cast<P>(scale), n, n / x.shape[0]);
  });
}

}  // namespace qn::cuda
