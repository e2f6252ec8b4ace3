// Depthwise convolutions, vectors of adjacent channels at a time. A row of results is made of a few rows of the input:
// tiles of four pixels share the weights they load, and four times two accumulators hide the latency of multiply-adds.
#include "ops/cpu/depthwise.h"

#include <algorithm>
#include <vector>

#include "ops/cpu/conv_epilogue.h"
#include "ops/cpu/lanes.h"
#include "ops/cpu/scratch.h"

namespace qn::cpu {
namespace {

constexpr int kPixels = 4;   // of a tile
constexpr int kVectors = 2;  // of adjacent channels

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Results first .. first + step * (count - 1) of an axis are sums over taps: tap i reads element at[i] + j * in_step
/// for result number j, from lo[i] to hi[i] - 1, and has weight number weight[i]. The others have no such element.
struct Taps {
  int64_t first = 0, step = 1, count = 0, in_step = 1, n = 0;
  int64_t at[kMostTaps] = {}, lo[kMostTaps] = {}, hi[kMostTaps] = {}, weight[kMostTaps] = {};

  void add(int64_t start, int64_t elements, int64_t weight_number) {
    QN_ASSERT(n < kMostTaps);
    at[n] = start;
    lo[n] = std::clamp<int64_t>(ceil_div(std::max<int64_t>(-start, 0), in_step), 0, count);
    hi[n] = std::clamp<int64_t>(start >= elements ? 0 : ceil_div(elements - start, in_step), lo[n], count);
    weight[n++] = weight_number;
  }
  /// Where all taps have an element.
  int64_t inner_begin() const { return n == 0 ? 0 : *std::max_element(lo, lo + n); }
  int64_t inner_end() const { return n == 0 ? count : std::max(inner_begin(), *std::min_element(hi, hi + n)); }
};

/// Of a convolution's axis.
Taps forward_taps(int64_t elements, int64_t results, int64_t kernel, int64_t stride, int64_t padding) {
  Taps taps{.count = results, .in_step = stride};
  for (int64_t k = 0; k < kernel; ++k) taps.add(k - padding, elements, k);
  return taps;
}

/// Of its input's gradient: elements e = phase, phase + stride, ... get dy[(e + padding - k) / stride] where that is
/// whole.
Taps backward_taps(int64_t elements, int64_t results, int64_t kernel, int64_t stride, int64_t padding, int64_t phase) {
  Taps taps{.first = phase, .step = stride, .count = std::max<int64_t>(ceil_div(elements - phase, stride), 0)};
  for (int64_t k = 0; k < kernel; ++k)
    if ((phase + padding - k) % stride == 0) taps.add((phase + padding - k) / stride, results, k);
  return taps;
}

/// What one row of results is made of.
template <typename T>
struct RowSum {
  int64_t n = 0;
  const T* rows[kMostTaps];
  const ParameterOf<T>* weights[kMostTaps];  // [kernel_w, channels]
};

/// Sums of pixels j .. j + Pixels, all of whose taps exist, for Vectors vectors of channels from c on.
template <typename L, int Vectors, int Pixels, typename T, typename Store>
void sum_tile(const RowSum<T>& sum, const Taps& taps, int64_t j, int64_t c, int64_t channels, const Store& store) {
  typename L::Vector acc[Pixels][Vectors] = {};
  const int64_t step = taps.in_step * channels;
  for (int64_t r = 0; r < sum.n; ++r) {
    for (int64_t i = 0; i < taps.n; ++i) {
      const T* x = sum.rows[r] + (taps.at[i] + j * taps.in_step) * channels + c;
      const auto* w = sum.weights[r] + taps.weight[i] * channels + c;
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        const auto weight = L::load_parameter(w + v * L::kCount);
#pragma GCC unroll 8
        for (int p = 0; p < Pixels; ++p) acc[p][v] += L::load(x + p * step + v * L::kCount) * weight;
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(j + p, c + v * L::kCount, acc[p][v]);
}

/// The same for one pixel, of the taps that exist.
template <typename L, int Vectors, typename T, typename Store>
void sum_pixel(const RowSum<T>& sum, const Taps& taps, int64_t j, int64_t c, int64_t channels, const Store& store) {
  typename L::Vector acc[Vectors] = {};
  for (int64_t i = 0; i < taps.n; ++i) {
    if (j < taps.lo[i] || j >= taps.hi[i]) continue;
    for (int64_t r = 0; r < sum.n; ++r) {
      const T* x = sum.rows[r] + (taps.at[i] + j * taps.in_step) * channels + c;
      const auto* w = sum.weights[r] + taps.weight[i] * channels + c;
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) acc[v] += L::load(x + v * L::kCount) * L::load_parameter(w + v * L::kCount);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) store(j, c + v * L::kCount, acc[v]);
}

/// All results of a row: store(lanes, number of the result, channel, vector of sums).
template <typename T, typename Store>
void sum_row(const RowSum<T>& sum, const Taps& taps, int64_t channels, const Store& store) {
  const int64_t begin = taps.inner_begin(), end = taps.inner_end();
  for_channel_blocks<T, kVectors>(channels, [&](auto lanes, auto vectors, int64_t c) {
    using L = decltype(lanes);
    constexpr int kV = decltype(vectors)::value;
    const auto put = [&](int64_t j, int64_t channel, typename L::Vector v) { store(lanes, j, channel, v); };
    int64_t j = 0;
    for (; j < begin; ++j) sum_pixel<L, kV>(sum, taps, j, c, channels, put);
    for (; j + kPixels <= end; j += kPixels) sum_tile<L, kV, kPixels>(sum, taps, j, c, channels, put);
    for (; j < taps.count; ++j) sum_pixel<L, kV>(sum, taps, j, c, channels, put);
  });
}

/// [channels, kernel] as [kernel, channels], in memory that stays until the thread's next call.
template <typename T>
const ParameterOf<T>* channels_last(const T* w, int64_t channels, int64_t kernel) {
  static thread_local std::vector<ParameterOf<T>> scratch;
  ParameterOf<T>* packed = at_least(scratch, channels * kernel);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t k = 0; k < kernel; ++k) packed[k * channels + c] = w[c * kernel + k];
  return packed;
}

/// The rows that `taps` (of the other axis) give result number j, in the image at `x` of rows of `row` elements.
template <typename T>
RowSum<T> rows_of(const Taps& taps, int64_t j, const T* x, int64_t row, const ParameterOf<T>* w, int64_t weight_row) {
  RowSum<T> sum;
  for (int64_t i = 0; i < taps.n; ++i) {
    if (j < taps.lo[i] || j >= taps.hi[i]) continue;
    sum.rows[sum.n] = x + (taps.at[i] + j * taps.in_step) * row;
    sum.weights[sum.n++] = w + taps.weight[i] * weight_row;
  }
  return sum;
}

}  // namespace

void depthwise(const Tensor& y, const Tensor& x, const Tensor& w, const ConvShape& s, const ConvEpilogue& epilogue) {
  const Taps rows = forward_taps(s.height, s.out_height(), s.kernel_h, s.stride, s.pad_top);
  const Taps columns = forward_taps(s.width, s.out_width(), s.kernel_w, s.stride, s.pad_left);
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t channels = s.in, in_row = s.width * channels, out_row = s.out_width() * channels;
    const auto* packed = channels_last(w.as<T>(), channels, s.kernel_h * s.kernel_w);
    const EpilogueRow<T> finish(epilogue, channels);
    dispatch_fused(epilogue.activation, [&](auto act) {
      parallel_rows(s.batch * rows.count, out_row * s.kernel_h * s.kernel_w, [&](int64_t task) {
        const int64_t b = task / rows.count;
        const RowSum<T> sum =
            rows_of(rows, task % rows.count, x.as<T>() + b * s.height * in_row, in_row, packed, s.kernel_w * channels);
        T* out = y.as<T>();
        sum_row(sum, columns, channels, [&](auto lanes, int64_t j, int64_t c, auto v) {
          using L = decltype(lanes);
          const int64_t at = task * out_row + j * channels + c;
          if (finish.plain()) return L::store(out + at, v);
          ParameterOf<T> sums[L::kCount];
          L::store_parameter(sums, v);
          finish.store(out, at, sums, c, L::kCount, act);
        });
      });
    });
  });
}

void depthwise_input_grad(const Tensor& dx, const Tensor& dy, const Tensor& w, const ConvShape& s, int beta) {
  const auto taps_of_axis = [&](int64_t elements, int64_t results, int64_t kernel, int64_t padding) {
    std::vector<Taps> phases;
    for (int64_t phase = 0; phase < s.stride; ++phase)
      phases.push_back(backward_taps(elements, results, kernel, s.stride, padding, phase));
    return phases;
  };
  const auto rows = taps_of_axis(s.height, s.out_height(), s.kernel_h, s.pad_top);
  const auto columns = taps_of_axis(s.width, s.out_width(), s.kernel_w, s.pad_left);
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t channels = s.in, in_row = s.width * channels, out_row = s.out_width() * channels;
    const auto* packed = channels_last(w.as<T>(), channels, s.kernel_h * s.kernel_w);
    parallel_rows(s.batch * s.height, in_row * s.kernel_h * s.kernel_w, [&](int64_t task) {
      const int64_t b = task / s.height, row = task % s.height;
      const RowSum<T> sum = rows_of(rows[static_cast<size_t>(row % s.stride)], row / s.stride,
                                    dy.as<T>() + b * s.out_height() * out_row, out_row, packed, s.kernel_w * channels);
      T* out = dx.as<T>() + task * in_row;
      for (const Taps& taps : columns)
        sum_row(sum, taps, channels, [&](auto lanes, int64_t j, int64_t c, auto v) {
          using L = decltype(lanes);
          T* to = out + (taps.first + j * taps.step) * channels + c;
          L::store(to, beta != 0 ? L::load(to) + v : v);
        });
    });
  });
}

namespace {

/// Adds to sums[k][channel], k < Taps of the row, what a row dy of results gives the weights that read the row x.
template <typename L, int Vectors, int K, typename T>
void add_row_grad(ParameterOf<T>* sums, const T* dy, const T* x, const Taps& taps, int64_t first, int64_t c,
                  int64_t channels) {
  typename L::Vector acc[K][Vectors];
  for (int k = 0; k < K; ++k)
    for (int v = 0; v < Vectors; ++v) acc[k][v] = L::load_parameter(sums + (first + k) * channels + c + v * L::kCount);
  int64_t begin = 0, end = taps.count;
  for (int k = 0; k < K; ++k) {
    begin = std::max(begin, taps.lo[first + k]);
    end = std::min(end, taps.hi[first + k]);
  }
  end = std::max(begin, end);
  const auto add = [&](int k, int v, int64_t j) {
    acc[k][v] += L::load(dy + j * channels + c + v * L::kCount) *
                 L::load(x + (taps.at[first + k] + j * taps.in_step) * channels + c + v * L::kCount);
  };
  for (int64_t j = begin; j < end; ++j)
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) add(k, v, j);
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      for (int64_t j = taps.lo[first + k]; j < std::min(begin, taps.hi[first + k]); ++j) add(k, v, j);
      for (int64_t j = std::max(end, taps.lo[first + k]); j < taps.hi[first + k]; ++j) add(k, v, j);
    }
  for (int k = 0; k < K; ++k)
    for (int v = 0; v < Vectors; ++v) L::store_parameter(sums + (first + k) * channels + c + v * L::kCount, acc[k][v]);
}

/// All taps of a row, five or three at a time.
template <typename L, int Vectors, typename T>
void add_row_grads(ParameterOf<T>* sums, const T* dy, const T* x, const Taps& taps, int64_t c, int64_t channels) {
  int64_t k = 0;
  for (; taps.n - k >= 5; k += 5) add_row_grad<L, Vectors, 5>(sums, dy, x, taps, k, c, channels);
  for (; taps.n - k >= 3; k += 3) add_row_grad<L, Vectors, 3>(sums, dy, x, taps, k, c, channels);
  for (; k < taps.n; ++k) add_row_grad<L, Vectors, 1>(sums, dy, x, taps, k, c, channels);
}

}  // namespace

void depthwise_weight_grad(const Tensor& dw, const Tensor& x, const Tensor& dy, const ConvShape& s, int beta) {
  const Taps rows = forward_taps(s.height, s.out_height(), s.kernel_h, s.stride, s.pad_top);
  const Taps columns = forward_taps(s.width, s.out_width(), s.kernel_w, s.stride, s.pad_left);
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    const int64_t channels = s.in, kernel = s.kernel_h * s.kernel_w, all_rows = s.batch * rows.count;
    const int64_t in_row = s.width * channels, out_row = s.out_width() * channels;
    // Partial sums of fixed groups of rows, added in their order, so that the number of threads does not matter.
    const int64_t groups = std::min<int64_t>(16, all_rows);
    static thread_local std::vector<P> scratch;
    P* partial = zeros(scratch, groups * kernel * channels);
#pragma omp parallel for schedule(static) if (all_rows * out_row * kernel > 16384)
    for (int64_t g = 0; g < groups; ++g) {
      P* sums = partial + g * kernel * channels;
      for (int64_t r = all_rows * g / groups; r < all_rows * (g + 1) / groups; ++r) {
        const int64_t b = r / rows.count, oh = r % rows.count;
        for (int64_t k = 0; k < rows.n; ++k) {
          if (oh < rows.lo[k] || oh >= rows.hi[k]) continue;
          const T* in = x.as<T>() + (b * s.height + rows.at[k] + oh * s.stride) * in_row;
          for_channel_blocks<T, kVectors>(channels, [&](auto lanes, auto vectors, int64_t c) {
            add_row_grads<decltype(lanes), decltype(vectors)::value>(
                sums + k * s.kernel_w * channels, dy.as<T>() + r * out_row, in, columns, c, channels);
          });
        }
      }
    }
    P* out = dw.as<P>();
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < kernel; ++k) {
        P sum = beta != 0 ? out[c * kernel + k] : P{0};
        for (int64_t g = 0; g < groups; ++g) sum += partial[(g * kernel + k) * channels + c];
        out[c * kernel + k] = sum;
      }
  });
}

}  // namespace qn::cpu
