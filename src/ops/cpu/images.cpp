// Pooling, scaled channels and stochastic depth.
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {
namespace {

constexpr int64_t kStripe = 64;  // channels per task: every sum is one thread's, in the order of pixels

/// f(image, first channel, number of channels) in parallel.
template <typename F>
void parallel_stripes(int64_t batch, int64_t channels, int64_t pixels, F&& f) {
  const int64_t stripes = (channels + kStripe - 1) / kStripe;
#pragma omp parallel for schedule(static) if (batch * pixels * channels > 16384)
  for (int64_t task = 0; task < batch * stripes; ++task) {
    const int64_t begin = task % stripes * kStripe;
    f(task / stripes, begin, std::min(kStripe, channels - begin));
  }
}

struct ImageSizes {
  int64_t batch, pixels, channels;
};
ImageSizes sizes_of(const Tensor& x) {
  QN_ASSERT(x.shape.rank() == 4, "{} is no batch of images", x.shape.to_string());
  return {x.shape[0], x.shape[1] * x.shape[2], x.shape[3]};
}

}  // namespace

void average_pool(const Tensor& y, const Tensor& x) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto [batch, pixels, channels] = sizes_of(x);
    parallel_stripes(batch, channels, pixels,
                     [&, pixels = pixels, channels = channels](int64_t b, int64_t c0, int64_t n) {
                       const T* in = x.as<T>() + b * pixels * channels + c0;
                       P sums[kStripe] = {};
                       for (int64_t p = 0; p < pixels; ++p)
                         for (int64_t c = 0; c < n; ++c) sums[c] += in[p * channels + c];
                       T* out = y.as<T>() + b * channels + c0;
                       for (int64_t c = 0; c < n; ++c) out[c] = static_cast<T>(sums[c] / static_cast<P>(pixels));
                     });
  });
}

void average_pool_grad(const Tensor& dx, const Tensor& dy, int beta) {
  dispatch_float(dx.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto [batch, pixels, channels] = sizes_of(dx);
    const P share = P{1} / static_cast<P>(pixels);
    parallel_rows(batch * pixels, channels, [&, pixels = pixels, channels = channels](int64_t r) {
      const T* grad = dy.as<T>() + r / pixels * channels;
      T* out = dx.as<T>() + r * channels;
      if (beta != 0)
        for (int64_t c = 0; c < channels; ++c) out[c] = static_cast<T>(out[c] + share * grad[c]);
      else
        for (int64_t c = 0; c < channels; ++c) out[c] = static_cast<T>(share * grad[c]);
    });
  });
}

void scale_channels(const Tensor& y, const Tensor& x, const Tensor& s) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto [batch, pixels, channels] = sizes_of(x);
    parallel_rows(batch * pixels, channels, [&, pixels = pixels, channels = channels](int64_t r) {
      const T *in = x.as<T>() + r * channels, *scale = s.as<T>() + r / pixels * channels;
      T* out = y.as<T>() + r * channels;
      for (int64_t c = 0; c < channels; ++c) out[c] = static_cast<T>(in[c] * scale[c]);
    });
  });
}

void scale_channels_grad(const Tensor& dx, int beta_x, const Tensor& ds, int beta_s, const Tensor& dy, const Tensor& x,
                         const Tensor& s) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto [batch, pixels, channels] = sizes_of(x);
    parallel_stripes(batch, channels, pixels,
                     [&, pixels = pixels, channels = channels](int64_t b, int64_t c0, int64_t n) {
                       const int64_t at = b * pixels * channels + c0;
                       const T* scale = s.as<T>() + b * channels + c0;
                       P sums[kStripe] = {};
                       for (int64_t p = 0; p < pixels; ++p) {
                         const T *in = x.as<T>() + at + p * channels, *grad = dy.as<T>() + at + p * channels;
                         T* out = dx.as<T>() + at + p * channels;
                         for (int64_t c = 0; c < n; ++c) {
                           const P g = grad[c];
                           sums[c] += g * in[c];
                           out[c] = static_cast<T>(beta_x != 0 ? out[c] + g * scale[c] : g * scale[c]);
                         }
                       }
                       T* out = ds.as<T>() + b * channels + c0;
                       for (int64_t c = 0; c < n; ++c)
                         out[c] = static_cast<T>(beta_s != 0 ? out[c] + sums[c] : sums[c]);
                     });
  });
}

void scale_samples(const Tensor& y, const Tensor& residual, const Tensor& x, const uint64_t* bits, double scale) {
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t batch = x.shape[0], each = x.elements() / std::max<int64_t>(batch, 1);
    constexpr int64_t kPiece = 16384;
    const int64_t pieces = (each + kPiece - 1) / kPiece;
#pragma omp parallel for schedule(static) if (batch * pieces > 1)
    for (int64_t task = 0; task < batch * pieces; ++task) {
      const int64_t b = task / pieces, begin = b * each + task % pieces * kPiece;
      const int64_t n = std::min(kPiece, (b + 1) * each - begin);
      const bool kept = bits == nullptr || ((bits[b / 64] >> (b % 64)) & 1U) != 0;
      const P factor = kept ? static_cast<P>(scale) : P{0};
      const T* in = x.as<T>() + begin;
      const T* start = residual.defined() ? residual.as<T>() + begin : nullptr;
      T* out = y.as<T>() + begin;
      if (start != nullptr)
        for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(start[i] + factor * in[i]);
      else
        for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(factor * in[i]);
    }
  });
}

}  // namespace qn::cpu
