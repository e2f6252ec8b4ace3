// Keep bits, and the element-wise kernels that apply them.
#include <cmath>
#include <numbers>
#include <type_traits>

#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"

namespace qn::cpu {
namespace {

/// Calls f(i, factor) for each element of a chunk, factor = scale where its bit is set (or there are no bits), else 0.
template <typename T, typename F>
void masked_loop(int64_t begin, int64_t end, const uint64_t* bits, T scale, F&& f) {
  if (bits == nullptr) {
    for (int64_t i = begin; i < end; ++i) f(i, scale);
    return;
  }
  const auto* words = reinterpret_cast<const uint32_t*>(bits);  // little-endian halves of the 64-bit words
  int64_t i = begin;
  for (; i + 32 <= end; i += 32) {
    const uint32_t word = words[i / 32];
    for (uint32_t j = 0; j < 32; ++j) f(i + j, ((word >> j) & 1U) != 0 ? scale : T{0});
  }
  for (; i < end; ++i) f(i, ((words[i / 32] >> (i % 32)) & 1U) != 0 ? scale : T{0});
}

/// f(y, x_i, factor) element-wise in parallel chunks.
template <typename F>
void masked_kernel(const Tensor& like, const uint64_t* bits, double scale, F&& f) {
  dispatch_float(like.dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(like.elements(),
                    [&, scale](int64_t b, int64_t e) { masked_loop<T>(b, e, bits, static_cast<T>(scale), f(tag)); });
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
  masked_kernel(y, bits, scale, [&](auto tag) {
    using T = decltype(tag);
    T* out = y.as<T>();
    const T* in = x.as<T>();
    const T keep = beta != 0 ? T{1} : T{0};
    return [=](int64_t i, T factor) { out[i] = (keep != T{0} ? out[i] : T{0}) + factor * in[i]; };
  });
}

void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const uint64_t* bits, double scale) {
  masked_kernel(y, bits, scale, [&](auto tag) {
    using T = decltype(tag);
    T* out = y.as<T>();
    const T *in = x.as<T>(), *res = residual.as<T>();
    return [=](int64_t i, T factor) { out[i] = res[i] + factor * in[i]; };
  });
}

void activation(const Tensor& y, const Tensor& x, Activation kind, const uint64_t* bits, double scale) {
  const auto apply = [&](auto function) {
    masked_kernel(y, bits, scale, [&](auto tag) {
      using T = decltype(tag);
      T* out = y.as<T>();
      const T* in = x.as<T>();
      return [=](int64_t i, T factor) { out[i] = factor * function(in[i]); };
    });
  };
  if (kind == Activation::relu)
    apply([](auto v) { return v > 0 ? v : decltype(v){0}; });
  else
    apply([](auto v) { return gelu(v); });
}

void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind, const uint64_t* bits,
                     double scale) {
  const auto apply = [&](auto derivative) {
    masked_kernel(dx, bits, scale, [&](auto tag) {
      using T = decltype(tag);
      T* out = dx.as<T>();
      const T *in = x.as<T>(), *g = dy.as<T>();
      return [=](int64_t i, T factor) { out[i] = factor * derivative(in[i]) * g[i]; };
    });
  };
  if (kind == Activation::relu)
    apply([](auto v) { return v > 0 ? decltype(v){1} : decltype(v){0}; });
  else
    apply([](auto v) { return gelu_derivative(v); });
}

}  // namespace qn::cpu
