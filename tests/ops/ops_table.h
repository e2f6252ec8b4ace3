// One entry per differentiable op and kernel, in the shapes where they could go wrong: single elements, sizes beside
// the blocks of the kernels, work large enough for several threads. ops_test.cpp runs every entry through every check.
#pragma once

#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace qn::test {

/// A floating input, drawn from a standard normal distribution.
struct OpInput {
  Shape shape;
  /// away_from_zero keeps clear of kinks at zero, also after a tiny value is added.
  enum class Values { any, positive, away_from_zero, tiny } values = Values::any;
  /// Of the type of parameters, not of activations (ops/kernels.h), and so is its gradient.
  bool parameter = false;
};

struct OpCase {
  /// The results for given inputs. A result without a slot (losses) counts with its plain sum, others are weighted.
  using Forward = std::function<std::vector<Var>(Tape&, std::span<const Var>)>;

  std::string name;  ///< letters, digits and underscores
  std::vector<OpInput> inputs = {};
  Forward forward = {};
  bool training = false;
  bool differentiable = true;
  bool single_use = false;  ///< its inputs may not have other uses
  bool of_codes = false;    ///< for backends with Kernels::from_codes alone
  /// What the gradient is the derivative of where that is not `forward` (straight-through estimators). Gets the
  /// inputs, then the inputs without the perturbation of the finite difference; always in double.
  Forward surrogate = {};
};

inline void PrintTo(const OpCase& op, std::ostream* out) { *out << op.name; }

const std::vector<OpCase>& ops_table();

}  // namespace qn::test
