// Activations and their derivatives, for kernels that are compiled for each of them.
#pragma once

#include <cmath>

#include "ops/kernels.h"

namespace qn::cuda {

struct Identity {
  template <typename P>
  __device__ static P value(P x) {
    return x;
  }
  template <typename P>
  __device__ static P derivative(P) {
    return P{1};
  }
};

struct Relu {
  template <typename P>
  __device__ static P value(P x) {
    return x > P{0} ? x : P{0};
  }
  template <typename P>
  __device__ static P derivative(P x) {
    return x > P{0} ? P{1} : P{0};
  }
};

/// As in torch, the slope is 0 at 0 and at 6.
struct Relu6 {
  template <typename P>
  __device__ static P value(P x) {
    const P positive = x > P{0} ? x : P{0};
    return positive < P{6} ? positive : P{6};
  }
  template <typename P>
  __device__ static P derivative(P x) {
    return x > P{0} && x < P{6} ? P{1} : P{0};
  }
};

struct Gelu {
  template <typename P>
  __device__ static P cdf(P x) {
    return P{0.5} * (P{1} + erf(x * static_cast<P>(0.70710678118654752440)));
  }
  template <typename P>
  __device__ static P value(P x) {
    return x * cdf(x);
  }
  template <typename P>
  __device__ static P derivative(P x) {
    return cdf(x) + x * exp(P{-0.5} * x * x) * static_cast<P>(0.39894228040143267794);
  }
};

struct Tanh {
  template <typename P>
  __device__ static P value(P x) {
    return tanh(x);
  }
  template <typename P>
  __device__ static P derivative(P x) {
    const P y = tanh(x);
    return P{1} - y * y;
  }
};

struct Sigmoid {
  template <typename P>
  __device__ static P value(P x) {
    const P small = exp(x > P{0} ? -x : x);
    return (x > P{0} ? P{1} : small) / (P{1} + small);
  }
  template <typename P>
  __device__ static P derivative(P x) {
    const P s = value(x);
    return s * (P{1} - s);
  }
};

struct Silu {
  template <typename P>
  __device__ static P value(P x) {
    return x * Sigmoid::value(x);
  }
  template <typename P>
  __device__ static P derivative(P x) {
    const P s = Sigmoid::value(x);
    return s + x * s * (P{1} - s);
  }
};

/// x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); see cpu/gelu.h.
struct GeluTanh {
  template <typename P>
  __device__ static P share(P x) {
    return Sigmoid::value(static_cast<P>(1.59576912160573071176) * (x + static_cast<P>(0.044715) * x * x * x));
  }
  template <typename P>
  __device__ static P value(P x) {
    return x * share(x);
  }
  template <typename P>
  __device__ static P derivative(P x) {
    const P near = x > P{20} ? P{20} : x < P{-20} ? P{-20} : x;
    const P s = share(near);
    return s + near * s * (P{1} - s) * static_cast<P>(1.59576912160573071176) *
                   (P{1} + static_cast<P>(3 * 0.044715) * near * near);
  }
};

template <typename F>
void choose_activation(Activation kind, F&& f) {
  switch (kind) {
    case Activation::relu:
      return f(Relu{});
    case Activation::gelu:
      return f(Gelu{});
    case Activation::tanh:
      return f(Tanh{});
    case Activation::gelu_tanh:
      return f(GeluTanh{});
    case Activation::relu6:
      return f(Relu6{});
    case Activation::silu:
      return f(Silu{});
    case Activation::sigmoid:
      return f(Sigmoid{});
  }
}

template <typename F>
void choose_fused(const FusedActivation& kind, F&& f) {
  if (!kind.has_value()) return f(Identity{});
  switch (*kind) {
    case Activation::relu:
      return f(Relu{});
    case Activation::relu6:
      return f(Relu6{});
    case Activation::silu:
      return f(Silu{});
    default:
      QN_ASSERT(false, "{} is not computed together with other things", name_of(*kind));
  }
}

}  // namespace qn::cuda
