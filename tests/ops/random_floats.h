// Operands of kernels that are tested without tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "core/random.h"

namespace qn::test {

/// n normally distributed numbers, always the same for an id.
inline std::vector<float> random_floats(int64_t n, uint64_t id) {
  const RandomStream random({.seed = 4, .purpose = Purpose::test, .id = id});
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(static_cast<float>(random.normal(static_cast<uint64_t>(i))));
  return x;
}

}  // namespace qn::test
