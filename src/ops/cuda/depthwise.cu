// A thread has one channel, whose weights (or their gradients) stay in its registers; adjacent threads have adjacent
// channels.
#include <algorithm>
#include <type_traits>

#include "ops/cuda/depthwise.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

constexpr int kPixels = 4;         // adjacent results of a row that share what they load
constexpr int kLanes = 8;          // threads of a block for a channel
constexpr int64_t kBlocks = 2048;  // so many keep a device busy

/// What device code reads of a shape.
struct Sizes {
  int height, width, rows, columns, channels, pad_top, pad_left;
  int64_t pixels;  ///< results of all images
  int strips;      ///< of kPixels results in a row
};

Sizes sizes_of(const ConvShape& s) {
  const auto columns = static_cast<int>(s.out_width());
  return {static_cast<int>(s.height),       static_cast<int>(s.width),
          static_cast<int>(s.out_height()), columns,
          static_cast<int>(s.in),           static_cast<int>(s.pad_top),
          static_cast<int>(s.pad_left),     s.batch * s.out_height() * columns,
          (columns + kPixels - 1) / kPixels};
}

dim3 block() { return {32, kLanes}; }
dim3 grid(int64_t channels, int64_t tasks) {
  const int64_t across = (channels + 31) / 32;
  return {static_cast<unsigned>(across),
          static_cast<unsigned>(std::clamp<int64_t>(kBlocks / across, 1, std::max<int64_t>(tasks / kLanes, 1)))};
}

// Strips of results by turns. With `flipped` weights it is the gradient of the input.
template <int K, int Stride, typename T, typename P>
__global__ void depthwise_kernel(T* y, const T* x, const T* w, Sizes s, int64_t strips, bool flipped, int beta) {
  const int c = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  if (c >= s.channels) return;
  P weights[K * K];
#pragma unroll
  for (int k = 0; k < K * K; ++k) weights[k] = static_cast<P>(w[c * K * K + (flipped ? K * K - 1 - k : k)]);
  for (int64_t t = static_cast<int64_t>(blockIdx.y) * kLanes + threadIdx.y; t < strips;
       t += static_cast<int64_t>(gridDim.y) * kLanes) {
    const int first = static_cast<int>(t % s.strips) * kPixels, row = static_cast<int>(t / s.strips % s.rows);
    const int64_t b = t / s.strips / s.rows;
    P sums[kPixels] = {};
#pragma unroll
    for (int kh = 0; kh < K; ++kh) {
      const int h = row * Stride + kh - s.pad_top;
      if (h < 0 || h >= s.height) continue;
      const T* line = x + (b * s.height + h) * s.width * s.channels + c;
#pragma unroll
      for (int j = 0; j < (kPixels - 1) * Stride + K; ++j) {
        const int v = first * Stride + j - s.pad_left;
        if (v < 0 || v >= s.width) continue;
        const P value = static_cast<P>(line[static_cast<int64_t>(v) * s.channels]);
#pragma unroll
        for (int p = 0; p < kPixels; ++p)
          if (j - p * Stride >= 0 && j - p * Stride < K) sums[p] += value * weights[kh * K + j - p * Stride];
      }
    }
    T* out = y + ((b * s.rows + row) * s.columns + first) * s.channels + c;
#pragma unroll
    for (int p = 0; p < kPixels; ++p)
      if (first + p < s.columns) {
        T& to = out[static_cast<int64_t>(p) * s.channels];
        to = static_cast<T>(beta != 0 ? static_cast<P>(to) + sums[p] : sums[p]);
      }
  }
}

// partial[group, tap, c]: the gradient of a weight from every gridDim.y-th group of results.
template <int K, int Stride, typename T, typename P>
__global__ void weight_grad_kernel(P* partial, const T* x, const T* dy, Sizes s) {
  __shared__ P shared[kLanes][33];
  const int c = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  P sums[K * K] = {};
  if (c < s.channels) {
    const int64_t begin = s.pixels * blockIdx.y / gridDim.y, end = s.pixels * (blockIdx.y + 1) / gridDim.y;
    for (int64_t r = begin + threadIdx.y; r < end; r += kLanes) {
      const int column = static_cast<int>(r % s.columns), row = static_cast<int>(r / s.columns % s.rows);
      const int64_t b = r / s.columns / s.rows;
      const P grad = static_cast<P>(dy[r * s.channels + c]);
#pragma unroll
      for (int kh = 0; kh < K; ++kh) {
        const int h = row * Stride + kh - s.pad_top;
        if (h < 0 || h >= s.height) continue;
        const T* line = x + (b * s.height + h) * s.width * s.channels + c;
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
          const int v = column * Stride + kw - s.pad_left;
          if (v >= 0 && v < s.width)
            sums[kh * K + kw] += grad * static_cast<P>(line[static_cast<int64_t>(v) * s.channels]);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K * K; ++k) {
    __syncthreads();  // the sums of the tap before have been read
    shared[threadIdx.y][threadIdx.x] = sums[k];
    __syncthreads();
    if (threadIdx.y != 0 || c >= s.channels) continue;
    P sum = sums[k];
    for (int lane = 1; lane < kLanes; ++lane) sum += shared[lane][threadIdx.x];
    partial[(static_cast<int64_t>(blockIdx.y) * K * K + k) * s.channels + c] = sum;
  }
}

/// dw[c, tap] = beta * dw[c, tap] + the sum over groups
template <typename P>
__global__ void add_weight_grads_kernel(P* dw, const P* partial, int64_t groups, int taps, int channels, int beta) {
  for (int64_t i = thread_index(); i < static_cast<int64_t>(taps) * channels; i += thread_count()) {
    const int64_t c = i % channels, k = i / channels;
    P sum = beta != 0 ? dw[c * taps + k] : P{0};
    for (int64_t g = 0; g < groups; ++g) sum += partial[(g * taps + k) * channels + c];
    dw[c * taps + k] = sum;
  }
}

/// f(kernel, stride) with constants.
template <typename F>
void dispatch_sizes(const ConvShape& s, F&& f) {
  const auto with_stride = [&](auto kernel) {
    return s.stride == 1 ? f(kernel, std::integral_constant<int, 1>{}) : f(kernel, std::integral_constant<int, 2>{});
  };
  return s.kernel_h == 3 ? with_stride(std::integral_constant<int, 3>{})
                         : with_stride(std::integral_constant<int, 5>{});
}

template <int K, int Stride>
void convolve(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s, bool flipped, int beta) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Sizes sizes = sizes_of(s);
    const int64_t strips = s.batch * sizes.rows * sizes.strips;
    launch(depthwise_kernel<K, Stride, T, ParameterOf<T>>, grid(s.in, strips), block(), data_of<T>(y), data_of<T>(x),
           data_of<T>(w), sizes, strips, flipped, beta);
  });
}

}  // namespace

bool depthwise_kernels_take(const ConvShape& s) {
  return s.depthwise() && s.kernel_h == s.kernel_w && (s.kernel_h == 3 || s.kernel_h == 5) && s.stride <= 2;
}

void depthwise(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s) {
  dispatch_sizes(s, [&](auto kernel, auto stride) {
    convolve<decltype(kernel)::value, decltype(stride)::value>(y, x, w, s, false, 0);
  });
}

void depthwise_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  QN_ASSERT(s.stride == 1);
  // The gradient is a convolution of dy with the weights turned round.
  ConvShape turned = s;
  turned.height = s.out_height();
  turned.width = s.out_width();
  turned.pad({s.kernel_h - 1 - s.pad_top, s.kernel_h - 1 - s.pad_bottom},
             {s.kernel_w - 1 - s.pad_left, s.kernel_w - 1 - s.pad_right});
  dispatch_sizes(s, [&](auto kernel, auto) { convolve<decltype(kernel)::value, 1>(dx, dy, w, turned, true, beta); });
}

void depthwise_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    dispatch_sizes(s, [&](auto kernel, auto stride) {
      constexpr int kK = decltype(kernel)::value, kStride = decltype(stride)::value;
      Context& context = Context::current();
      const ScratchScope scope(context.scratch());
      const Sizes sizes = sizes_of(s);
      const dim3 groups = grid(s.in, sizes.pixels / 8);  // several results for each thread
      auto* partial = static_cast<P*>(
          context.scratch().allocate(static_cast<size_t>(static_cast<int64_t>(groups.y) * s.weights()) * sizeof(P)));
      launch(weight_grad_kernel<kK, kStride, T, P>, groups, block(), partial, data_of<T>(x), data_of<T>(dy), sizes);
      launch(add_weight_grads_kernel<P>, flat_grid(s.weights()), kThreads, data_of<P>(dw), partial,
             static_cast<int64_t>(groups.y), kK * kK, sizes.channels, beta);
    });
  });
}

}  // namespace qn::cuda
