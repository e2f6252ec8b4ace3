// What calls of kernels have to do at least: the one place that counts operations and bytes. The profiler divides it by
// time; ops/dry_work.h adds it up over a pass.
#pragma once

#include "core/profiler.h"
#include "ops/kernels.h"

namespace qn {

/// Multiplications and additions of a product, two per term.
inline Work matmul_work(const MatmulArgs& a) {
  return {.flops = 2.0 * static_cast<double>(a.m) * static_cast<double>(a.n) * static_cast<double>(a.k)};
}

/// Two products over the pairs of positions that see each other.
inline Work attention_work(const AttentionArgs& a) {
  return {.flops = 4.0 * static_cast<double>(a.heads * a.head_dim) * static_cast<double>(a.pairs)};
}

/// Two products for each of the forward's. The probabilities that the kernel computes again are not counted: that is
/// its way of saving memory, not the model's work.
inline Work attention_grad_work(const AttentionArgs& a) { return {.flops = 2.0 * attention_work(a).flops}; }

/// Two operations for every weight that a pixel of the result meets; what padding adds counts.
inline Work conv2d_work(const ConvShape& s) {
  return {.flops =
              2.0 * static_cast<double>(s.batch * s.out_height() * s.out_width()) * static_cast<double>(s.weights())};
}

inline double bytes_of(const Tensor& t) { return t.defined() ? static_cast<double>(t.bytes()) : 0.0; }
template <typename T>
double bytes_of(const T&) {
  return 0.0;
}

/// WorkOf<&Kernels::entry>::of(arguments) for every entry of the table. Here: every tensor is read or written once.
template <auto Kernel>
struct WorkOf {
  template <typename... A>
  static Work of(const A&... args) {
    return {.bytes = (0.0 + ... + bytes_of(args))};
  }
};

struct TransferWork {
  static Work of(const void*, const void*, size_t bytes) { return {.bytes = static_cast<double>(bytes)}; }
};
template <>
struct WorkOf<&Kernels::upload> : TransferWork {};
template <>
struct WorkOf<&Kernels::download> : TransferWork {};
template <>
struct WorkOf<&Kernels::start_download> : TransferWork {};

template <>
struct WorkOf<&Kernels::matmul> {
  static Work of(const MatmulArgs& a) { return matmul_work(a); }
};
template <>
struct WorkOf<&Kernels::matmul_int8> {
  static Work of(const Int8MatmulArgs& a) {
    return {.flops = 2.0 * static_cast<double>(a.x.elements()) * static_cast<double>(a.n)};
  }
};
template <>
struct WorkOf<&Kernels::matmul_codes> {
  static Work of(const CodeMatmulArgs& a) {
    return {.flops = 2.0 * static_cast<double>(a.x.rows()) * static_cast<double>(a.weight.rows * a.weight.cols)};
  }
};
template <>
struct WorkOf<&Kernels::attention> {
  static Work of(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const AttentionArgs& a) {
    return attention_work(a);
  }
};
template <>
struct WorkOf<&Kernels::attention_grad> {
  static Work of(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                 const Tensor&, const AttentionArgs& a) {
    return attention_grad_work(a);
  }
};

struct Conv2dWork {
  static Work of(const Tensor&, const Tensor&, const Tensor&, const ConvShape& shape, const auto&) {
    return conv2d_work(shape);
  }
};
template <>
struct WorkOf<&Kernels::conv2d> : Conv2dWork {};
template <>
struct WorkOf<&Kernels::conv2d_input_grad> : Conv2dWork {};
template <>
struct WorkOf<&Kernels::conv2d_weight_grad> : Conv2dWork {};

/// y is read as well when the kernel adds to it.
inline Work accumulated(const Tensor& y, const Tensor& x, int beta) {
  return {.bytes = bytes_of(y) * (beta != 0 ? 2.0 : 1.0) + bytes_of(x)};
}

template <>
struct WorkOf<&Kernels::axpy> {
  static Work of(const Tensor& y, const Tensor& x, double, int beta) { return accumulated(y, x, beta); }
};
template <>
struct WorkOf<&Kernels::masked_axpy> {
  static Work of(const Tensor& y, const Tensor& x, const uint64_t*, double, int beta) {
    return accumulated(y, x, beta);
  }
};
template <>
struct WorkOf<&Kernels::add_bias> {
  static Work of(const Tensor& y, int64_t, const Tensor& bias) {
    return {.bytes = 2.0 * static_cast<double>(y.rows()) * bytes_of(bias)};
  }
};
template <>
struct WorkOf<&Kernels::bias_grad> {
  static Work of(const Tensor& dbias, const Tensor& dy, int64_t, int) {
    return {.bytes = static_cast<double>(dy.rows()) * bytes_of(dbias)};
  }
};
template <>
struct WorkOf<&Kernels::keep_bits> {
  static Work of(const uint64_t*, int64_t n, double, const RandomKey&) {
    return {.bytes = 8.0 * static_cast<double>(keep_words(n))};
  }
};
template <>
struct WorkOf<&Kernels::fake_quantize_grad> {
  static Work of(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor&, const Tensor&, int, int beta) {
    return {.bytes = accumulated(dx, dy, beta).bytes + bytes_of(x)};
  }
};

// Of the table only the rows that are named are touched.
template <>
struct WorkOf<&Kernels::gather_rows> {
  static Work of(const Tensor& y, const Tensor&, const int32_t*, double) { return {.bytes = 2.0 * bytes_of(y)}; }
};
template <>
struct WorkOf<&Kernels::scatter_add_rows> {
  static Work of(const Tensor&, const Tensor& x, const int32_t*, double, int32_t) {
    return {.bytes = 3.0 * bytes_of(x)};
  }
};
template <>
struct WorkOf<&Kernels::scatter_rows> {
  static Work of(const Tensor&, const Tensor& x, const int32_t*, double) { return {.bytes = 2.0 * bytes_of(x)}; }
};

template <>
struct WorkOf<&Kernels::cross_entropy> {
  static Work of(const Tensor&, const Tensor& logits, int64_t, const int32_t*, const int32_t*, double, bool write_grad,
                 const double*) {
    return {.bytes = bytes_of(logits) * (write_grad ? 2.0 : 1.0)};
  }
};
template <>
struct WorkOf<&Kernels::nag_step> {
  static Work of(const Tensor& p, const Tensor& velocity, const Tensor& g, const NagStep&, const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(velocity)) + bytes_of(g)};
  }
};
template <>
struct WorkOf<&Kernels::adam_step> {
  static Work of(const Tensor& p, const Tensor& m, const Tensor& v, const Tensor& g, const AdamStep&,
                 const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(m) + bytes_of(v)) + bytes_of(g)};
  }
};
template <>
struct WorkOf<&Kernels::sgd_step> {
  static Work of(const Tensor& p, const Tensor& momentum, const Tensor& g, const SgdStep&, const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(momentum)) + bytes_of(g)};
  }
};
template <>
struct WorkOf<&Kernels::rmsprop_step> {
  static Work of(const Tensor& p, const Tensor& square, const Tensor& momentum, const Tensor& g, const RmspropStep&,
                 const StepDecision*) {
    return {.bytes = 2.0 * (bytes_of(p) + bytes_of(square) + bytes_of(momentum)) + bytes_of(g)};
  }
};

}  // namespace qn
