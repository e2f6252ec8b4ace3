// Keep bits, and the element-wise kernels that apply them.
#include "ops/cpu/activations.h"
#include "ops/cpu/cpu_kernels.h"
#include "ops/cpu/parallel.h"
#include "ops/cpu/philox_lanes.h"

namespace qn::cpu {
namespace {

constexpr int64_t kWord = 32;  // elements handled together: one half of a 64-bit word of keep bits

/// Bias by flat element index: repeats every `cols` elements; all zeros without a bias.
template <typename P>
class BiasRow {
 public:
  BiasRow(const Tensor& bias, int64_t cols)
      : bias_(bias.defined() ? bias.as<P>() : nullptr), cols_(cols), whole_(cols % kWord == 0) {
    QN_ASSERT(!bias.defined() || bias.elements() == cols);
  }
  /// Biases of elements i .. i + 31, i a multiple of 32. `scratch` holds them where they are not in one piece.
  const P* at(int64_t i, P* scratch) const {
    static constexpr P kZeros[kWord] = {};
    if (bias_ == nullptr) return kZeros;
    if (whole_) return bias_ + i % cols_;
    for (int64_t j = 0; j < kWord; ++j) scratch[j] = bias_[(i + j) % cols_];
    return scratch;
  }

 private:
  const P* bias_;
  int64_t cols_;
  bool whole_;
};

/// Calls f(i, factor, bias) for each element of a chunk that starts at a multiple of 32: factor = scale where its bit
/// is set (or there are no bits), else 0.
template <typename P, typename F>
void masked_loop(int64_t begin, int64_t end, const uint64_t* bits, P scale, const BiasRow<P>& bias, F&& f) {
  const auto* words = reinterpret_cast<const uint32_t*>(bits);  // little-endian halves of the 64-bit words
  P scratch[kWord];
  int64_t i = begin;
  for (; i + kWord <= end; i += kWord) {
    const P* b = bias.at(i, scratch);
    if (bits == nullptr) {
      for (int64_t j = 0; j < kWord; ++j) f(i + j, scale, b[j]);
      continue;
    }
    const uint32_t word = words[i / kWord];
    for (uint32_t j = 0; j < kWord; ++j) f(i + j, ((word >> j) & 1U) != 0 ? scale : P{0}, b[j]);
  }
  const P* b = bias.at(i, scratch);
  const uint32_t word = bits != nullptr && i < end ? words[i / kWord] : ~0U;
  for (int64_t j = 0; i + j < end; ++j) f(i + j, ((word >> j) & 1U) != 0 ? scale : P{0}, b[j]);
}

/// f(i, factor, bias_i) element-wise in parallel chunks over the elements of `like`; computes in P.
template <typename P, typename F>
void masked_kernel(const Tensor& like, const Tensor& bias, const uint64_t* bits, double scale, const F& f) {
  const BiasRow<P> row(bias, like.cols());
  parallel_chunks(like.elements(),
                  [&](int64_t b, int64_t e) { masked_loop(b, e, bits, static_cast<P>(scale), row, f); });
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
  dispatch_pair(y.dtype, x.dtype, [&](auto y_tag, auto x_tag) {
    using Y = decltype(y_tag);
    using X = decltype(x_tag);
    using P = ParameterOf<Y>;
    Y* out = y.as<Y>();
    const X* in = x.as<X>();
    if (beta != 0)
      masked_kernel<P>(y, {}, bits, scale,
                       [=](int64_t i, P factor, P) { out[i] = static_cast<Y>(out[i] + factor * in[i]); });
    else
      masked_kernel<P>(y, {}, bits, scale,
                       [=](int64_t i, P factor, P) { out[i] = static_cast<Y>(P{0} + factor * in[i]); });
  });
}

void residual_add(const Tensor& y, const Tensor& residual, const Tensor& x, const Tensor& bias, const uint64_t* bits,
                  double scale) {
  dispatch_float(y.dtype, [&](auto tag) {
    using T = decltype(tag);
    using P = ParameterOf<T>;
    T* out = y.as<T>();
    const T *in = x.as<T>(), *res = residual.as<T>();
    masked_kernel<P>(y, bias, bits, scale,
                     [=](int64_t i, P factor, P b) { out[i] = static_cast<T>(res[i] + factor * (in[i] + b)); });
  });
}

void activation(const Tensor& y, const Tensor& x, const Tensor& bias, Activation kind, const uint64_t* bits,
                double scale) {
  dispatch_activation(kind, [&](auto function) {
    dispatch_float(y.dtype, [&](auto tag) {
      using T = decltype(tag);
      using P = ParameterOf<T>;
      T* out = y.as<T>();
      const T* in = x.as<T>();
      masked_kernel<P>(y, bias, bits, scale,
                       [=](int64_t i, P factor, P b) { out[i] = static_cast<T>(factor * function.value(in[i] + b)); });
    });
  });
}

void activation_grad(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& bias, Activation kind,
                     const uint64_t* bits, double scale) {
  dispatch_activation(kind, [&](auto function) {
    dispatch_float(dx.dtype, [&](auto tag) {
      using T = decltype(tag);
      using P = ParameterOf<T>;
      T* out = dx.as<T>();
      const T *in = x.as<T>(), *g = dy.as<T>();
      masked_kernel<P>(dx, bias, bits, scale, [=](int64_t i, P factor, P b) {
        out[i] = static_cast<T>(factor * function.derivative(in[i] + b) * g[i]);
      });
    });
  });
}

}  // namespace qn::cpu
