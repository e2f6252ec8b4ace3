// Linear maps and layer norms: named parameters plus one op.
#pragma once

#include <cmath>
#include <string>

#include "nn/weight.h"
#include "ops/ops.h"

namespace qn {

/// What a layer needs while it is built: where its parameters go.
struct Build {
  ParameterStore& store;
  WeightSet& weights;

  Weight* linear(const std::string& name, const char* group, int64_t out, int64_t in, InitRule init) const {
    return weights.add(store, name, group, WeightKind::linear, out, in, init);
  }
  /// Vectors of tokens first, first + 1, ...
  Weight* table(const std::string& name, int64_t first, int64_t rows, int64_t dim, InitRule init) const {
    Weight* weight = weights.add(store, name, groups::kEmbedding, WeightKind::embedding, rows, dim, init);
    weight->set_first_token(first);
    return weight;
  }
};

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

/// y = x W^T + b; b is optional.
struct Linear {
  Weight* weight = nullptr;
  Parameter* bias = nullptr;

  Var operator()(Tape& tape, const Var& x) const {
    return linear(tape, x, weight->value(tape), bias != nullptr ? bias->var(tape) : Var{});
  }
  /// x W^T, for callers whose next op adds the bias.
  Var without_bias(Tape& tape, const Var& x) const { return linear(tape, x, weight->value(tape), {}); }
};

struct LayerNorm {
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;

  static LayerNorm build(const Build& b, const std::string& name, int64_t dim) {
    return {b.store.add(name + ".weight", {dim}, init::ones()), b.store.add(name + ".bias", {dim}, init::zeros())};
  }
  Var operator()(Tape& tape, const Var& x) const { return layer_norm(tape, x, weight->var(tape), bias->var(tape)); }
};

}  // namespace qn
