// Linear maps and layer norms: named parameters plus one op.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "nn/module.h"

namespace qn {

namespace init {
inline InitRule uniform(double a) { return {InitRule::Kind::uniform, a, -1}; }
inline InitRule normal(double std_dev, int64_t zero_row = -1) { return {InitRule::Kind::normal, std_dev, zero_row}; }
inline InitRule xavier(int64_t out, int64_t in, double gain = 1.0) {
  return uniform(gain * std::sqrt(6.0 / static_cast<double>(out + in)));
}
/// torch's default for linear weights and biases.
inline InitRule fan_in(int64_t in) { return uniform(1.0 / std::sqrt(static_cast<double>(in))); }
inline InitRule zeros() { return {}; }
inline InitRule ones() { return {InitRule::Kind::ones, 0.0, -1}; }
}  // namespace init

/// What a linear map has given when its bias is left to the op that comes next.
struct Unbiased {
  Var value, bias;  ///< `bias` is undefined where it has been added already
};

/// y = x W^T + b; b is optional, and so are the places where x and y pass.
struct Linear {
  Weight* weight = nullptr;
  Parameter* bias = nullptr;
  ActivationPoint* input = nullptr;
  ActivationPoint* output = nullptr;

  /// Weight `own`.weight [out, in]; `own`.bias where `bias` says how it starts; places `own`.input and `own`.output.
  static Linear build(const Scope& scope, const std::string& own, const char* group, int64_t out, int64_t in,
                      InitRule weight, std::optional<InitRule> bias) {
    return {scope.linear(own + ".weight", group, out, in, weight),
            bias ? scope.parameter(own + ".bias", {out}, *bias) : nullptr, scope.activation(own + ".input"),
            scope.activation(own + ".output")};
  }

  /// The same map once more in a network, between places of its own.
  Linear again(const Scope& scope, const std::string& own) const {
    return {weight, bias, scope.activation(own + ".input"), scope.activation(own + ".output")};
  }

  Var operator()(Tape& tape, const Var& x) const {
    const Var y = multiply(tape, x, bias != nullptr ? bias->var(tape) : Var{});
    return output != nullptr ? (*output)(tape, y) : y;
  }
  /// For callers whose next op adds the bias: in one pass over memory. A quantized output must have its bias.
  Unbiased without_bias(Tape& tape, const Var& x) const {
    if (output != nullptr && output->quantizer() != nullptr) return {(*this)(tape, x), {}};
    return {multiply(tape, x, {}), bias != nullptr ? bias->var(tape) : Var{}};
  }

 private:
  Var multiply(Tape& tape, const Var& x, const Var& b) const {
    if (input == nullptr || input->quantizer() == nullptr) return weight->linear(tape, x, b);
    return weight->linear(tape, (*input)(tape, x), b, input->quantizer());
  }
};

struct LayerNorm {
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;
  double eps = kNormEps;

  static LayerNorm build(const Scope& scope, const std::string& own, int64_t dim, double eps = kNormEps) {
    return {scope.parameter(own + ".weight", {dim}, init::ones()), scope.parameter(own + ".bias", {dim}, init::zeros()),
            eps};
  }
  Var operator()(Tape& tape, const Var& x) const {
    return layer_norm(tape, x, weight->var(tape), bias->var(tape), eps);
  }
};

}  // namespace qn
