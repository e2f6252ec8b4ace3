// Product-quantized weights. Layout: block n = j * rows + r is W[r, j*d : (j+1)*d], and codes[n] names its centroid.
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/sort.h"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

template <typename T, typename P>
__global__ void decode_kernel(T* w, const P* centroids, const uint16_t* codes, int64_t rows, int64_t cols, int64_t d) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const int64_t j = c / d, t = c % d;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
    w[r * cols + c] = static_cast<T>(centroids[codes[j * rows + r] * d + t]);
}

/// First place of a key that is at least `key`.
__device__ int64_t lower_bound(const SortedKeys& sorted, int32_t key) {
  int64_t low = 0, high = sorted.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted.keys[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// One block per centroid. Neighbouring threads take the columns of a weight block, `lanes` weight blocks side by side;
// sums in double, as on the CPU.
template <typename T, typename P>
__global__ void centroid_grad_kernel(P* dcentroids, const T* dw, SortedKeys codes, const int64_t* counts, int beta,
                                     int64_t rows, int64_t cols, int64_t d) {
  __shared__ double sums[kThreads];
  const auto k = static_cast<int32_t>(blockIdx.x);
  const int64_t begin = lower_bound(codes, k), end = lower_bound(codes, k + 1);
  double scale = 1.0;
  if (counts != nullptr) scale = 1.0 / static_cast<double>(counts[k] > 1 ? counts[k] : 1);
  for (int64_t first = 0; first < d; first += kThreads) {
    const int width = static_cast<int>(d - first < kThreads ? d - first : kThreads), lanes = kThreads / width;
    const int lane = static_cast<int>(threadIdx.x) / width, t = static_cast<int>(threadIdx.x) % width;
    double sum = 0.0;
    if (lane < lanes)
      for (int64_t i = begin + lane; i < end; i += lanes) {
        const int64_t block = codes.order[i];
        sum += static_cast<double>(dw[block % rows * cols + block / rows * d + first + t]);
      }
    __syncthreads();  // the sums of the columns before have been read
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (lane != 0) continue;
    for (int l = 1; l < lanes; ++l) sum += sums[l * width + t];
    P& out = dcentroids[k * d + first + t];
    out = (beta != 0 ? out : P{0}) + static_cast<P>(sum * scale);
  }
}

// y may be x.
template <typename Y, typename X, typename P>
__global__ void scale_rows_kernel(Y* y, const X* x, const P* scale, int beta, int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const P value = scale[r] * static_cast<P>(x[i]);
    y[i] = static_cast<Y>(beta != 0 ? static_cast<P>(y[i]) + value : value);
  }
}

// A warp per row.
template <typename X, typename Y, typename P>
__global__ void row_dots_kernel(P* dots, const X* x, const Y* y, int beta, int64_t rows, int64_t cols) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.y;
  if (r >= rows) return;
  double sum = 0.0;
  for (int64_t c = threadIdx.x; c < cols; c += 32)
    sum += static_cast<double>(x[r * cols + c]) * static_cast<double>(y[r * cols + c]);
  sum = warp_reduce(sum, Sum{});
  if (threadIdx.x == 0) dots[r] = (beta != 0 ? dots[r] : P{0}) + static_cast<P>(sum);
}

}  // namespace

void scale_rows(const Tensor& y, const Tensor& x, const Tensor& scale, int beta) {
  dispatch_pair(y.dtype, x.dtype, [&](auto tag_y, auto tag_x) {
    using Y = decltype(tag_y);
    using X = decltype(tag_x);
    using P = ParameterOf<Y>;
    launch(scale_rows_kernel<Y, X, P>, matrix_grid(x.rows(), x.cols()), kThreads, data_of<Y>(y), data_of<X>(x),
           data_of<P>(scale), beta, x.rows(), x.cols());
  });
}

void row_dots(const Tensor& dots, const Tensor& x, const Tensor& y, int beta) {
  dispatch_pair(x.dtype, y.dtype, [&](auto tag_x, auto tag_y) {
    using X = decltype(tag_x);
    using Y = decltype(tag_y);
    using P = ParameterOf<X>;
    launch(row_dots_kernel<X, Y, P>, warp_grid(x.rows()), warp_block(), data_of<P>(dots), data_of<X>(x), data_of<Y>(y),
           beta, x.rows(), x.cols());
  });
}

void pq_decode(const Tensor& w, const Tensor& centroids, const uint16_t* codes) {
  dispatch_float(w.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(decode_kernel<T, P>, matrix_grid(w.rows(), w.cols()), kThreads, data_of<T>(w), data_of<P>(centroids), codes,
           w.rows(), w.cols(), centroids.cols());
  });
}

void pq_centroid_grad(const Tensor& dcentroids, const Tensor& dw, const uint16_t* codes, const int64_t* counts,
                      int beta) {
  const ScratchScope scope(Context::current().scratch());
  const SortedKeys sorted = sort_keys(codes, dw.elements() / dcentroids.cols(), dcentroids.rows());
  dispatch_float(dw.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    launch(centroid_grad_kernel<T, P>, dim3(static_cast<unsigned>(dcentroids.rows())), kThreads, data_of<P>(dcentroids),
           data_of<T>(dw), sorted, counts, beta, dw.rows(), dw.cols(), dcentroids.cols());
  });
}

}  // namespace qn::cuda
