// How much the columns of a weight matter: the mean squares of the inputs that it multiplies. The error of an output is
// the sum over columns j of (decoded - original)_j x_j, so column j's squared error counts E[x_j^2] (the diagonal of
// the layer's Hessian, as in "Optimal Brain Surgeon" and GPTQ).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/activation_point.h"
#include "nn/module.h"

namespace qn {

/// By weight; relative importances of its columns, mean 1. Weights that multiply nothing are missing.
using ColumnImportances = std::map<std::string, std::vector<float>>;

/// Watches weights of a module as long as it lives. Only passes that record no gradient are seen.
class InputStatistics {
 public:
  InputStatistics(Module& module, const std::vector<std::string>& weights);
  ~InputStatistics();
  InputStatistics(const InputStatistics&) = delete;
  InputStatistics& operator=(const InputStatistics&) = delete;

  /// Mean squares of all inputs on all ranks to the power `exponent`; the same on any number of ranks, bit for bit.
  /// Columns count at least a thousandth of the mean: no more is known of inputs that happened to be small. Throws
  /// qn::Error naming a weight whose inputs are not finite or beyond all measure. Collective.
  ColumnImportances importances(double exponent, const AcrossRanks& ranks) const;

 private:
  struct Sums;
  class Watched;
  Module& module_;
  std::vector<std::unique_ptr<Sums>> sums_;  // by weight
};

}  // namespace qn
