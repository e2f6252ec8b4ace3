#include "ops/cpu/conv_plain.h"

#include <vector>

#include "ops/cpu/conv_epilogue.h"
#include "ops/cpu/parallel.h"

namespace qn::cpu {
namespace {

/// f(element of the input, tap) for every tap of result (oh, ow) that reads an element of the image.
template <typename F>
void for_taps(const ConvShape& s, int64_t oh, int64_t ow, F&& f) {
  for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
    const int64_t h = oh * s.stride + kh - s.pad_top;
    if (h < 0 || h >= s.height) continue;
    for (int64_t kw = 0; kw < s.kernel_w; ++kw) {
      const int64_t w = ow * s.stride + kw - s.pad_left;
      if (w >= 0 && w < s.width) f(h * s.width + w, kh * s.kernel_w + kw);
    }
  }
}

/// Weights as [group, tap, in of the group, out of the group].
template <typename T>
std::vector<ParameterOf<T>> outputs_last(const T* w, const ConvShape& s) {
  const int64_t ins = s.in_per_group(), outs = s.out_per_group(), taps = s.kernel_h * s.kernel_w;
  std::vector<ParameterOf<T>> packed(static_cast<size_t>(s.weights()));
  for (int64_t o = 0; o < s.out; ++o)
    for (int64_t i = 0; i < ins; ++i)
      for (int64_t t = 0; t < taps; ++t)
        packed[static_cast<size_t>((((o / outs) * taps + t) * ins + i) * outs + o % outs)] =
            w[(o * ins + i) * taps + t];
  return packed;
}

}  // namespace

void conv_plain(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s, const ConvEpilogue& epilogue) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto packed = outputs_last(w.as<T>(), s);
    const EpilogueRow<T> finish(epilogue, s.out);
    const int64_t ins = s.in_per_group(), outs = s.out_per_group(), taps = s.kernel_h * s.kernel_w;
    const int64_t rows = s.out_height(), columns = s.out_width();
    dispatch_fused(epilogue.activation, [&](auto act) {
      parallel_rows(s.batch * rows, columns * s.weights(), [&](int64_t task) {
        std::vector<P> sums(static_cast<size_t>(s.out));
        const T* image = x.as<T>() + task / rows * s.height * s.width * s.in;
        for (int64_t ow = 0; ow < columns; ++ow) {
          std::fill(sums.begin(), sums.end(), P{0});
          for_taps(s, task % rows, ow, [&](int64_t pixel, int64_t tap) {
            for (int64_t c = 0; c < s.in; ++c) {
              const P value = image[pixel * s.in + c];
              const int64_t group = c / ins;
              const P* weights = packed.data() + ((group * taps + tap) * ins + c % ins) * outs;
              P* to = sums.data() + group * outs;
              for (int64_t o = 0; o < outs; ++o) to[o] += value * weights[o];
            }
          });
          finish.store(y.as<T>(), (task * columns + ow) * s.out, sums.data(), 0, s.out, act);
        }
      });
    });
  });
}

void conv_plain_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const auto packed = outputs_last(w.as<T>(), s);
    const int64_t ins = s.in_per_group(), outs = s.out_per_group(), taps = s.kernel_h * s.kernel_w;
    const int64_t results = s.out_height() * s.out_width(), image = s.height * s.width * s.in;
#pragma omp parallel for schedule(static) if (s.batch * results * s.weights() > 16384)
    for (int64_t b = 0; b < s.batch; ++b) {
      std::vector<P> sums(static_cast<size_t>(image), P{0});
      for (int64_t r = 0; r < results; ++r) {
        const T* grad = dy.as<T>() + (b * results + r) * s.out;
        for_taps(s, r / s.out_width(), r % s.out_width(), [&](int64_t pixel, int64_t tap) {
          for (int64_t c = 0; c < s.in; ++c) {
            const int64_t group = c / ins;
            const P* weights = packed.data() + ((group * taps + tap) * ins + c % ins) * outs;
            P sum = 0;
            for (int64_t o = 0; o < outs; ++o) sum += grad[group * outs + o] * weights[o];
            sums[static_cast<size_t>(pixel * s.in + c)] += sum;
          }
        });
      }
      T* out = dx.as<T>() + b * image;
      for (int64_t i = 0; i < image; ++i)
        out[i] = static_cast<T>((beta != 0 ? out[i] : P{0}) + sums[static_cast<size_t>(i)]);
    }
  });
}

void conv_plain_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t ins = s.in_per_group(), outs = s.out_per_group(), taps = s.kernel_h * s.kernel_w;
    const int64_t results = s.out_height() * s.out_width();
    P* out = dw.as<P>();
    // Every weight is summed by one thread, in the order of pixels.
#pragma omp parallel for schedule(static) if (s.batch * results * s.weights() > 16384)
    for (int64_t o = 0; o < s.out; ++o) {
      std::vector<P> sums(static_cast<size_t>(ins * taps), P{0});
      for (int64_t b = 0; b < s.batch; ++b) {
        const T* image = x.as<T>() + b * s.height * s.width * s.in + o / outs * ins;
        for (int64_t r = 0; r < results; ++r) {
          const P grad = dy.as<T>()[(b * results + r) * s.out + o];
          for_taps(s, r / s.out_width(), r % s.out_width(), [&](int64_t pixel, int64_t tap) {
            for (int64_t i = 0; i < ins; ++i)
              sums[static_cast<size_t>(i * taps + tap)] += grad * image[pixel * s.in + i];
          });
        }
      }
      P* to = out + o * ins * taps;
      for (int64_t i = 0; i < ins * taps; ++i) to[i] = (beta != 0 ? to[i] : P{0}) + sums[static_cast<size_t>(i)];
    }
  });
}

}  // namespace qn::cpu
