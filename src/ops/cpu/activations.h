// Activations and their derivatives as function objects, and the choice of one: kernels are compiled for each.
#pragma once

#include <cmath>

#include "ops/cpu/gelu.h"
#include "ops/kernels.h"

namespace qn::cpu {

struct Identity {
  template <typename P>
  static P value(P x) {
    return x;
  }
  template <typename P>
  static P derivative(P) {
    return 1;
  }
};

struct Relu {
  template <typename P>
  static P value(P x) {
    return x > 0 ? x : P{0};
  }
  template <typename P>
  static P derivative(P x) {
    return x > 0 ? P{1} : P{0};
  }
};

/// As in torch, the slope is 0 at 0 and at 6.
struct Relu6 {
  template <typename P>
  static P value(P x) {
    const P positive = x > 0 ? x : P{0};
    return positive < 6 ? positive : P{6};
  }
  template <typename P>
  static P derivative(P x) {
    return x > 0 && x < 6 ? P{1} : P{0};
  }
};

struct Sigmoid {
  template <typename P>
  static P value(P x) {
    return sigmoid(x);
  }
  template <typename P>
  static P derivative(P x) {
    const P s = sigmoid(x);
    return s * (P{1} - s);
  }
};

struct Silu {
  template <typename P>
  static P value(P x) {
    return x * sigmoid(x);
  }
  template <typename P>
  static P derivative(P x) {
    const P s = sigmoid(x);
    return s + x * s * (P{1} - s);
  }
};

struct Gelu {
  template <typename P>
  static P value(P x) {
    return gelu(x);
  }
  template <typename P>
  static P derivative(P x) {
    return gelu_derivative(x);
  }
};

struct Tanh {
  template <typename P>
  static P value(P x) {
    return std::tanh(x);
  }
  template <typename P>
  static P derivative(P x) {
    return 1 - std::tanh(x) * std::tanh(x);
  }
};

struct GeluTanh {
  template <typename P>
  static P value(P x) {
    return gelu_tanh(x);
  }
  template <typename P>
  static P derivative(P x) {
    return gelu_tanh_derivative(x);
  }
};

template <typename F>
void dispatch_activation(Activation kind, F&& f) {
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
void dispatch_fused(const FusedActivation& kind, F&& f) {
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

}  // namespace qn::cpu
