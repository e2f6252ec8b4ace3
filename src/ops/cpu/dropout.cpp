// Keep bits, and the element-wise kernels that apply them.
#include <cmath>
#include <numbers>
#include <type_traits>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"

namespace qn::cpu {
namespace {

constexpr int64_t kWord = 32;  // elements handled together: one half of a 64-bit word of keep bits

/// Bias by flat element index: repeats every `cols` elements; all zeros without a bias.
template <typename T>
class BiasRow {
 public:
  BiasRow(const Tensor& bias, int64_t cols)
      : bias_(bias.defined() ? bias.as<T>() : nullptr), cols_(cols), whole_(cols % kWord == 0) {
    QN_ASSERT(!bias.defined() || bias.elements() == cols);
  }
  /// Biases of elements i .. i + 31, i a multiple of 32. `scratch` holds them where they are not in one piece.
  const T* at(int64_t i, T* scratch) const {
    static constexpr T kZeros[kWord] = {};
    if (bias_ == nullptr) return kZeros;
    if (whole_) return bias_ + i % cols_;
    for (int64_t j = 0; j < kWord; ++j) scratch[j] = bias_[(i + j) % cols_];
    return scratch;
  }

 private:
  const T* bias_;
  int64_t cols_;
  bool whole_;
};

/// Calls f(i, factor, bias) for each element of a chunk that starts at a multiple of 32: factor = scale where its bit
/// is set (or there are no bits), else 0.
template <typename T, typename F>
void masked_loop(int64_t begin, int64_t end, const uint64_t* bits, T scale, const BiasRow<T>& bias, F&& f) {
  const auto* words = reinterpret_cast<const uint32_t*>(bits);  // little-endian halves of the 64-bit words
  T scratch[kWord];
  int64_t i = begin;
  for (; i + kWord <= end; i += kWord) {
    const T* b = bias.at(i, scratch);
    if (bits == nullptr) {
      for (int64_t j = 0; j < kWord; ++j) f(i + j, scale, b[j]);
      continue;
    }
    const uint32_t word = words[i / kWord];
    for (uint32_t j = 0; j < kWord; ++j) f(i + j, ((word >> j) & 1U) != 0 ? scale : T{0}, b[j]);
  }
  const T* b = bias.at(i, scratch);
  const uint32_t word = bits != nullptr && i < end ? words[i / kWord] : ~0U;
  for (int64_t j = 0; i + j < end; ++j) f(i + j, ((word >> j) & 1U) != 0 ? scale : T{0}, b[j]);
}

/// f(i, factor, bias_i) element-wise in parallel chunks.
template <typename F>
void masked_kernel(const Tensor& like, const Tensor& bias, const uint64_t* bits, double scale, F&& f) {
  dispatch_float(like.dtype, [&](auto tag) {
    using T = decltype(tag);
    const BiasRow<T> row(bias, like.cols());
    parallel_chunks(like.elements(), [&, scale](int64_t b, int64_t e) {
      masked_loop<T>(b, e, bits, static_cast<T>(scale), row, f(tag));
    });
  });
}

template <typename T>
T gelu(T x) {
  return x * T{0.5} * (T{1} + std::erf(x * static_cast<T>(std::numbers::sqrt2 / 2)));
}

template <typename T>
T gelu_derivative(T x) {
  const T cdf = T{0.5} * (T{1} + std::erf(x * static_cast<T>(std::numbers::sqrt2 / 2)));
  const T pdf = std::exp(T{-0.5} * x * x) * static_cast<T>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
  return cdf + x * pdf;
}

}  // namespace

void keep_bits(uint64_t* bits, int64_t n, double p, const RandomKey& key) {
  const RandomStream stream(key);
  const uint32_t threshold = drop_threshold(p);
  const int64_t groups = (n + 127) / 128;
#pragma omp parallel for schedule(static) if (groups > 64)
  for (int64_t g = 0; g < groups; ++g) keep_bits_group(bits + 2 * g, g, threshold, stream);
}

void masked_axpy(const Tensor& y, const Tensor& x, const uint64_t* bits, double scale, int beta) {
  const auto apply = [&](auto accumulate) {
    masked_kernel(y, {}, bits, scale, [&](auto tag) {
      using T = decltype(tag);
      T* out = y.as<T>();
      const T* in = x.as<T>();
      return [=](int64_t i, T factor, T) { out[i] = (accumulate() ? out[i] : T{0}) + factor * in[i]; };
    });
  };
  if (beta != 0)
    apply(std::true_type{});
  else
    apply(std::false_type{});
}

void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias, const uint64_t* bits,
                  double scale) {
  masked_kernel(y, bias, bits, scale, [&](auto tag) {
    using T = decltype(tag);
    T* out = y.as<T>();
    const T *in = x.as<T>(), *res = residual.as<T>();
    return [=](int64_t i, T factor, T b) { out[i] = res[i] + factor * (in[i] + b); };
  });
}

void activation(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                double scale) {
  const auto apply = [&](auto function) {
    masked_kernel(y, bias, bits, scale, [&](auto tag) {
      using T = decltype(tag);
      T* out = y.as<T>();
      const T* in = x.as<T>();
      return [=](int64_t i, T factor, T b) { out[i] = factor * function(in[i] + b); };
    });
  };
  if (kind == Activation::relu)
    apply([](auto v) { return v > 0 ? v : decltype(v){0}; });
  else
    apply([](auto v) { return gelu(v); });
}

void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                     const uint64_t* bits, double scale) {
  const auto apply = [&](auto derivative) {
    masked_kernel(dx, bias, bits, scale, [&](auto tag) {
      using T = decltype(tag);
      T* out = dx.as<T>();
      const T *in = x.as<T>(), *g = dy.as<T>();
      return [=](int64_t i, T factor, T b) { out[i] = factor * derivative(in[i] + b) * g[i]; };
    });
  };
  if (kind == Activation::relu)
    apply([](auto v) { return v > 0 ? decltype(v){1} : decltype(v){0}; });
  else
    apply([](auto v) { return gelu_derivative(v); });
}

}  // namespace qn::cpu
