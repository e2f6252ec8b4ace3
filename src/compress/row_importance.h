// How much the rows of a weight matter to a fit.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "nn/weight.h"

namespace qn {

/// Relative importances of a weight's rows in a fit, mean 1; empty: all are alike.
using RowImportance = std::function<std::vector<float>(const Weight&)>;

/// Asks once per weight.
class RowImportances {
 public:
  explicit RowImportances(RowImportance of) : of_(std::move(of)) {}
  std::span<const float> of(const Weight& weight) {
    if (!of_) return {};
    const auto [entry, fresh] = known_.try_emplace(&weight);
    if (fresh) entry->second = of_(weight);
    return entry->second;
  }

 private:
  RowImportance of_;
  std::map<const Weight*, std::vector<float>> known_;
};

}  // namespace qn
