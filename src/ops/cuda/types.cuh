// Element types on the device, and the choice of a kernel's instance by the types of its tensors.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "core/tensor.h"

namespace qn::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr float kLog2OfE = 1.4426950408889634f;  // exp(x) is exp2(kLog2OfE * x)

/// P of the activations' type T (see ops/kernels.h): what kernels compute in.
template <typename T>
using ParameterOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, f16>)
    return DType::f16;
  else
    return DTypeOf<T>::value;
}

/// Pointer to the elements; an undefined tensor gives nullptr.
template <typename T>
T* data_of(const Tensor& t) {
  QN_ASSERT(!t.defined() || t.dtype == dtype_of<T>(), "a kernel for {} was given {}", name_of(dtype_of<T>()),
            name_of(t.dtype));
  return static_cast<T*>(t.data);
}

/// Calls f(T{}) with the element type.
template <typename F>
void dispatch_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(bf16{});
    case DType::f16:
      return f(f16{});
    default:
      QN_ASSERT(false, "no floating type: {}", name_of(dtype));
  }
}

/// Calls f(P{}) with the type of parameters.
template <typename F>
void dispatch_parameter(DType dtype, F&& f) {
  QN_ASSERT(dtype == DType::f32 || dtype == DType::f64, "no type of parameters: {}", name_of(dtype));
  dtype == DType::f64 ? f(double{}) : f(float{});
}

/// Calls f(Y{}, X{}) for two tensors of which each is T or P.
template <typename F>
void dispatch_pair(DType y, DType x, F&& f) {
  dispatch_float(y, [&](auto tag_y) {
    using Y = decltype(tag_y);
    if (x == y) return f(tag_y, tag_y);
    if constexpr (std::is_same_v<Y, float>) {
      if (x == DType::bf16) return f(tag_y, bf16{});
      if (x == DType::f16) return f(tag_y, f16{});
    } else if constexpr (!std::is_same_v<Y, double>) {
      if (x == DType::f32) return f(tag_y, float{});
    }
    QN_ASSERT(false, "{} does not go together with {}", name_of(y), name_of(x));
  });
}

}  // namespace qn::cuda
