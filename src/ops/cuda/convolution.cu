// Convolutions: through cuDNN where it has a plan, else dense ones as products with unfolded images, those of groups
// directly. Depthwise ones are always our own: depthwise.cu, or directly.
#include "ops/cuda/activations.cuh"
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/conv_plans.h"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/depthwise.cuh"
#include "ops/cuda/types.cuh"

namespace qn::cuda {
namespace {

constexpr int64_t kMostUnfolded = int64_t{128} << 20;  // bytes of unfolded images at a time

/// What device code reads of a shape.
struct Conv {
  ConvShape s;
  int rows, columns, ins, outs;  // of the result; channels of a group
};

Conv conv_of(const ConvShape& s) {
  QN_ASSERT(s.batch * s.height * s.width < INT32_MAX && s.batch * s.out_height() * s.out_width() < INT32_MAX);
  return {s, static_cast<int>(s.out_height()), static_cast<int>(s.out_width()), static_cast<int>(s.in_per_group()),
          static_cast<int>(s.out_per_group())};
}

/// The pixel of x that tap (kh, kw) of result pixel r reads, or -1.
__device__ int64_t source_pixel(const Conv& conv, int r, int kh, int kw) {
  const int ow = r % conv.columns, oh = r / conv.columns % conv.rows, b = r / conv.columns / conv.rows;
  const int64_t h = oh * conv.s.stride + kh - conv.s.pad_top, w = ow * conv.s.stride + kw - conv.s.pad_left;
  return h < 0 || h >= conv.s.height || w < 0 || w >= conv.s.width ? -1 : (b * conv.s.height + h) * conv.s.width + w;
}

/// The pixel of the result that reads pixel r of x with tap (kh, kw), or -1.
__device__ int64_t target_pixel(const Conv& conv, int r, int kh, int kw) {
  const int w = static_cast<int>(r % conv.s.width), h = static_cast<int>(r / conv.s.width % conv.s.height),
            b = static_cast<int>(r / conv.s.width / conv.s.height), stride = static_cast<int>(conv.s.stride);
  const int up = h + static_cast<int>(conv.s.pad_top) - kh, left = w + static_cast<int>(conv.s.pad_left) - kw;
  if (up < 0 || left < 0 || up % stride != 0 || left % stride != 0) return -1;
  if (up / stride >= conv.rows || left / stride >= conv.columns) return -1;
  return (static_cast<int64_t>(b) * conv.rows + up / stride) * conv.columns + left / stride;
}

// One thread per channel of the result; rows are its pixels, here and below.
template <typename T, typename P>
__global__ void direct_kernel(T* y, const T* x, const T* w, Conv conv, int64_t pixels) {
  const int64_t o = thread_index();
  if (o >= conv.s.out) return;
  const int64_t kernel = conv.s.kernel_h * conv.s.kernel_w, first = o / conv.outs * conv.ins;
  for (int64_t r = blockIdx.y; r < pixels; r += gridDim.y) {
    P sum = 0;
    for (int kh = 0; kh < conv.s.kernel_h; ++kh)
      for (int kw = 0; kw < conv.s.kernel_w; ++kw) {
        const int64_t pixel = source_pixel(conv, static_cast<int>(r), kh, kw);
        if (pixel < 0) continue;
        for (int i = 0; i < conv.ins; ++i)
          sum += static_cast<P>(x[pixel * conv.s.in + first + i]) *
                 static_cast<P>(w[(o * conv.ins + i) * kernel + kh * conv.s.kernel_w + kw]);
      }
    y[r * conv.s.out + o] = static_cast<T>(sum);
  }
}

template <typename T, typename P>
__global__ void direct_input_grad_kernel(T* dx, const T* dy, const T* w, Conv conv, int64_t pixels, int beta) {
  const int64_t c = thread_index();
  if (c >= conv.s.in) return;
  const int64_t kernel = conv.s.kernel_h * conv.s.kernel_w, first = c / conv.ins * conv.outs, i = c % conv.ins;
  for (int64_t r = blockIdx.y; r < pixels; r += gridDim.y) {
    P sum = beta != 0 ? static_cast<P>(dx[r * conv.s.in + c]) : P{0};
    for (int kh = 0; kh < conv.s.kernel_h; ++kh)
      for (int kw = 0; kw < conv.s.kernel_w; ++kw) {
        const int64_t pixel = target_pixel(conv, static_cast<int>(r), kh, kw);
        if (pixel < 0) continue;
        for (int64_t o = first; o < first + conv.outs; ++o)
          sum += static_cast<P>(dy[pixel * conv.s.out + o]) *
                 static_cast<P>(w[(o * conv.ins + i) * kernel + kh * conv.s.kernel_w + kw]);
      }
    dx[r * conv.s.in + c] = static_cast<T>(sum);
  }
}

/// Shares of one pixel in the gradient of the weight that meets input i of the group with tap (kh, kw), for every
/// channel of the result.
template <typename T, typename P>
struct WeightTerm {
  const T *dy, *x;
  Conv conv;
  int i, kh, kw;
  __device__ P operator()(int64_t r, int64_t o) const {
    const int64_t pixel = source_pixel(conv, static_cast<int>(r), kh, kw);
    if (pixel < 0) return P{0};
    return static_cast<P>(dy[r * conv.s.out + o]) * static_cast<P>(x[pixel * conv.s.in + o / conv.outs * conv.ins + i]);
  }
};

/// dw[o, j] = beta * dw[o, j] + sums[j, o]
template <typename P>
__global__ void add_transposed_kernel(P* dw, const P* sums, int64_t out, int64_t each, int beta) {
  for (int64_t n = thread_index(); n < out * each; n += thread_count()) {
    const P sum = sums[n % each * out + n / each];
    dw[n] = beta != 0 ? dw[n] + sum : sum;
  }
}

// unfolded[r, (i, kh, kw)] = what pixel r of the result reads.
template <typename T>
__global__ void unfold_kernel(T* unfolded, const T* x, Conv conv, int64_t pixels) {
  const int64_t j = thread_index();
  const int64_t kernel = conv.s.kernel_h * conv.s.kernel_w, each = conv.s.in * kernel;
  if (j >= each) return;
  const int64_t i = j / kernel;
  const int tap = static_cast<int>(j % kernel), width = static_cast<int>(conv.s.kernel_w);
  for (int64_t r = blockIdx.y; r < pixels; r += gridDim.y) {
    const int64_t pixel = source_pixel(conv, static_cast<int>(r), tap / width, tap % width);
    unfolded[r * each + j] = pixel < 0 ? static_cast<T>(0.0f) : x[pixel * conv.s.in + i];
  }
}

// dx[r, i] = beta * dx[r, i] + the sum of what was read from there.
template <typename T, typename P>
__global__ void fold_gradient_kernel(T* dx, const T* unfolded, Conv conv, int64_t pixels, int beta) {
  const int64_t i = thread_index();
  if (i >= conv.s.in) return;
  const int64_t kernel = conv.s.kernel_h * conv.s.kernel_w, each = conv.s.in * kernel;
  for (int64_t r = blockIdx.y; r < pixels; r += gridDim.y) {
    P sum = beta != 0 ? static_cast<P>(dx[r * conv.s.in + i]) : P{0};
    for (int kh = 0; kh < conv.s.kernel_h; ++kh)
      for (int kw = 0; kw < conv.s.kernel_w; ++kw) {
        const int64_t pixel = target_pixel(conv, static_cast<int>(r), kh, kw);
        if (pixel >= 0) sum += static_cast<P>(unfolded[pixel * each + i * kernel + kh * conv.s.kernel_w + kw]);
      }
    dx[r * conv.s.in + i] = static_cast<T>(sum);
  }
}

// Sums become results in place.
template <typename Function, typename T, typename P>
__global__ void epilogue_kernel(T* y, const P* scale, const P* shift, const T* residual, int64_t rows, int64_t cols) {
  const int64_t c = thread_index();
  if (c >= cols) return;
  const P a = scale != nullptr ? scale[c] : P{1}, b = shift != nullptr ? shift[c] : P{0};
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const int64_t i = r * cols + c;
    const P v = Function::value(static_cast<P>(y[i]) * a + b);
    y[i] = static_cast<T>(residual != nullptr ? v + static_cast<P>(residual[i]) : v);
  }
}

// y[o, tap, i] = x[o, i, tap]
template <typename T>
__global__ void channels_last_kernel(T* y, const T* x, int64_t taps, int64_t ins, int64_t n) {
  for (int64_t k = thread_index(); k < n; k += thread_count())
    y[k] = x[(k / (taps * ins) * ins + k % ins) * taps + k / ins % taps];
}

// dw[o, i, tap] = beta * dw[o, i, tap] + grad[o, tap, i]
template <typename T, typename P>
__global__ void add_channels_first_kernel(P* dw, const T* grad, int64_t taps, int64_t ins, int64_t n, int beta) {
  for (int64_t k = thread_index(); k < n; k += thread_count()) {
    const P g = static_cast<P>(grad[(k / (taps * ins) * taps + k % taps) * ins + k / taps % ins]);
    dw[k] = beta != 0 ? dw[k] + g : g;
  }
}

template <typename T, typename P>
__global__ void add_kernel(T* y, const T* x, int64_t n) {
  for (int64_t i = thread_index(); i < n; i += thread_count())
    y[i] = static_cast<T>(static_cast<P>(y[i]) + static_cast<P>(x[i]));
}

template <typename T>
T* scratch_of(int64_t n) {
  return static_cast<T*>(Context::current().scratch().allocate(static_cast<size_t>(n) * sizeof(T)));
}

bool may_have_plan(const ConvShape& s, DType dtype) { return dtype != DType::f64 && !s.depthwise(); }

/// The weights as plans want them, in scratch memory.
template <typename T>
T* channels_last(const Tensor& w, const ConvShape& s) {
  T* copy = scratch_of<T>(s.weights());
  launch(channels_last_kernel<T>, flat_grid(s.weights()), kThreads, copy, data_of<T>(w), s.kernel_h * s.kernel_w,
         s.in_per_group(), s.weights());
  return copy;
}

template <typename T>
bool forward_by_plan(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s) {
  if (!may_have_plan(s, y.dtype)) return false;
  const ScratchScope scope(Context::current().scratch());
  return convolve_by_plan({ConvPass::forward, s, y.dtype, x.data, channels_last<T>(w, s), y.data});
}

template <typename T, typename P>
bool input_grad_by_plan(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  if (!may_have_plan(s, dy.dtype)) return false;
  const ScratchScope scope(Context::current().scratch());
  const int64_t n = dx.elements();
  T* to = beta != 0 ? scratch_of<T>(n) : data_of<T>(dx);
  if (!convolve_by_plan({ConvPass::input_grad, s, dy.dtype, to, channels_last<T>(w, s), dy.data})) return false;
  if (beta != 0) launch(add_kernel<T, P>, flat_grid(n), kThreads, data_of<T>(dx), to, n);
  return true;
}

template <typename T, typename P>
bool weight_grad_by_plan(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  if (!may_have_plan(s, dy.dtype)) return false;
  const ScratchScope scope(Context::current().scratch());
  T* grad = scratch_of<T>(s.weights());
  if (!convolve_by_plan({ConvPass::weight_grad, s, dy.dtype, x.data, grad, dy.data})) return false;
  launch(add_channels_first_kernel<T, P>, flat_grid(s.weights()), kThreads, data_of<P>(dw), grad,
         s.kernel_h * s.kernel_w, s.in_per_group(), s.weights(), beta);
  return true;
}

/// A few images of a batch, from image `first` on.
struct Part {
  ConvShape shape;
  int64_t in_offset, out_offset;  // elements before its images and results
};

/// f(part, scratch for its unfolded images) for parts that scratch memory has room for.
template <typename T, typename F>
void for_unfolded_parts(const ConvShape& s, F&& f) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const int64_t results = s.out_height() * s.out_width(), each = results * s.in * s.kernel_h * s.kernel_w;
  const int64_t at_once =
      std::clamp<int64_t>(kMostUnfolded / std::max<int64_t>(each * static_cast<int64_t>(sizeof(T)), 1), 1, s.batch);
  auto* scratch = static_cast<T*>(context.scratch().allocate(static_cast<size_t>(at_once * each) * sizeof(T)));
  for (int64_t b = 0; b < s.batch; b += at_once) {
    Part part{s, b * s.height * s.width * s.in, b * results * s.out};
    part.shape.batch = std::min(at_once, s.batch - b);
    f(part, scratch);
  }
}

template <typename T>
void unfold(T* unfolded, const T* x, const ConvShape& s) {
  const int64_t pixels = s.batch * s.out_height() * s.out_width();
  launch(unfold_kernel<T>, matrix_grid(pixels, s.in * s.kernel_h * s.kernel_w), kThreads, unfolded, x, conv_of(s),
         pixels);
}

/// Sizes of the product [pixels of the result, weights of a channel] x [.., channels].
MatmulArgs product(const ConvShape& s, DType dtype) {
  MatmulArgs args;
  args.dtype = args.dtype_c = dtype;
  args.m = s.batch * s.out_height() * s.out_width();
  args.n = s.out;
  args.k = s.in * s.kernel_h * s.kernel_w;
  return args;
}

}  // namespace

void conv2d(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s, const ConvEpilogue& e) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t pixels = s.batch * s.out_height() * s.out_width();
    if (depthwise_kernels_take(s)) {
      depthwise(y, x, w, s);
    } else if (forward_by_plan<T>(y, x, w, s)) {
      // Only the epilogue is left.
    } else if (s.groups > 1) {
      launch(direct_kernel<T, P>, matrix_grid(pixels, s.out), kThreads, data_of<T>(y), data_of<T>(x), data_of<T>(w),
             conv_of(s), pixels);
    } else {
      for_unfolded_parts<T>(s, [&](const Part& part, T* unfolded) {
        unfold(unfolded, data_of<T>(x) + part.in_offset, part.shape);
        MatmulArgs args = product(part.shape, y.dtype);
        args.transpose_b = true;
        args.a = unfolded;
        args.lda = args.ldb = args.k;
        args.b = w.data;
        args.c = data_of<T>(y) + part.out_offset;
        args.ldc = args.n;
        matmul(args);
      });
    }
    if (!e.scale.defined() && !e.shift.defined() && !e.activation.has_value() && !e.residual.defined()) return;
    choose_fused(e.activation, [&](auto function) {
      launch(epilogue_kernel<decltype(function), T, P>, matrix_grid(pixels, s.out), kThreads, data_of<T>(y),
             data_of<P>(e.scale), data_of<P>(e.shift), data_of<T>(e.residual), pixels, s.out);
    });
  });
}

void conv2d_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  if (depthwise_kernels_take(s) && s.stride == 1) return depthwise_input_grad(dx, dy, w, s, beta);
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    if (input_grad_by_plan<T, P>(dx, dy, w, s, beta)) return;
    if (s.groups > 1) {
      const int64_t pixels = s.batch * s.height * s.width;
      launch(direct_input_grad_kernel<T, P>, matrix_grid(pixels, s.in), kThreads, data_of<T>(dx), data_of<T>(dy),
             data_of<T>(w), conv_of(s), pixels, beta);
      return;
    }
    for_unfolded_parts<T>(s, [&](const Part& part, T* unfolded) {
      MatmulArgs args = product(part.shape, dy.dtype);
      std::swap(args.n, args.k);
      args.a = data_of<T>(dy) + part.out_offset;
      args.lda = args.k;
      args.b = w.data;
      args.ldb = args.ldc = args.n;
      args.c = unfolded;
      matmul(args);
      const int64_t pixels = part.shape.batch * s.height * s.width;
      launch(fold_gradient_kernel<T, P>, matrix_grid(pixels, s.in), kThreads, data_of<T>(dx) + part.in_offset, unfolded,
             conv_of(part.shape), pixels, beta);
    });
  });
}

namespace {

template <typename T, typename P>
void direct_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  Context& context = Context::current();
  const ScratchScope scope(context.scratch());
  const Conv conv = conv_of(s);
  const int64_t each = conv.ins * s.kernel_h * s.kernel_w;
  auto* sums = static_cast<P*>(context.scratch().allocate(static_cast<size_t>(s.weights()) * sizeof(P)));
  for (int i = 0; i < conv.ins; ++i)
    for (int kh = 0; kh < s.kernel_h; ++kh)
      for (int kw = 0; kw < s.kernel_w; ++kw) {
        const int64_t j = (i * s.kernel_h + kh) * s.kernel_w + kw;
        column_sums(sums + j * s.out, WeightTerm<T, P>{data_of<T>(dy), data_of<T>(x), conv, i, kh, kw},
                    s.batch * s.out_height() * s.out_width(), s.out, 0);
      }
  launch(add_transposed_kernel<P>, flat_grid(s.weights()), kThreads, data_of<P>(dw), sums, s.out, each, beta);
}

}  // namespace

void conv2d_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  if (depthwise_kernels_take(s)) return depthwise_weight_grad(dw, x, dy, s, beta);
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    if (weight_grad_by_plan<T, P>(dw, x, dy, s, beta)) return;
    if (s.groups > 1) return direct_weight_grad<T, P>(dw, x, dy, s, beta);
    int add = beta;
    for_unfolded_parts<T>(s, [&](const Part& part, T* unfolded) {
      unfold(unfolded, data_of<T>(x) + part.in_offset, part.shape);
      const MatmulArgs forward = product(part.shape, dy.dtype);
      MatmulArgs args = forward;  // [channels, pixels] x [pixels, weights of a channel]
      args.m = forward.n;
      args.n = forward.k;
      args.k = forward.m;
      args.dtype_c = dw.dtype;
      args.transpose_a = true;
      args.a = data_of<T>(dy) + part.out_offset;
      args.lda = args.m;
      args.b = unfolded;
      args.ldb = args.ldc = args.n;
      args.c = dw.data;
      args.beta = add;
      matmul(args);
      add = 1;
    });
  });
}

}  // namespace qn::cuda
