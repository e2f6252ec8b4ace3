// Loops over elements and rows, and the choice of element type, shared by the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "ops/kernels.h"

namespace qn::cpu {

/// The type P of ops/kernels.h that goes with activations of type T: what kernels compute in.
template <typename T>
using ParameterOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Calls f(T{}) with the type of activations.
template <typename F>
void dispatch_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bfloat16{});
    case DType::f64:
      return f(double{});
    default:
      QN_ASSERT(false, "no type of activations on the CPU: {}", name_of(dtype));
  }
}

/// Calls f(P{}) with the type of parameters.
template <typename F>
void dispatch_parameter(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    default:
      QN_ASSERT(false, "no type of parameters: {}", name_of(dtype));
  }
}

/// Calls f(Y{}, X{}) for two tensors of which each is T or P.
template <typename F>
void dispatch_pair(DType y, DType x, F&& f) {
  const bool wide = parameter_type(y) == DType::f64;
  QN_ASSERT(wide == (parameter_type(x) == DType::f64), "{} and {} do not go together", name_of(y), name_of(x));
  if (wide) return f(double{}, double{});
  const auto dispatch_narrow = [](DType dtype, auto&& g) {
    QN_ASSERT(dtype == DType::f32 || dtype == DType::bf16, "no floating type of the CPU: {}", name_of(dtype));
    dtype == DType::bf16 ? g(bfloat16{}) : g(float{});
  };
  dispatch_narrow(y, [&](auto y_tag) { dispatch_narrow(x, [&](auto x_tag) { f(y_tag, x_tag); }); });
}

/// f(begin, end) over chunks of [0, n), in parallel when there is enough work. Chunks are multiples of 128 elements,
/// so words of keep bits are never shared.
template <typename F>
void parallel_chunks(int64_t n, F&& f) {
  constexpr int64_t kChunk = 16384;
  const int64_t chunks = (n + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) if (chunks > 1)
  for (int64_t c = 0; c < chunks; ++c) f(c * kChunk, std::min(n, (c + 1) * kChunk));
}

/// f(row) for each row, in parallel when rows * cols is worth it.
template <typename F>
void parallel_rows(int64_t rows, int64_t cols, F&& f) {
#pragma omp parallel for schedule(static) if (rows * cols > 16384)
  for (int64_t r = 0; r < rows; ++r) f(r);
}

}  // namespace qn::cpu
