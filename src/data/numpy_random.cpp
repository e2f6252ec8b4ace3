#include "data/numpy_random.h"

#include <bit>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace qn {
namespace {

uint32_t checked_seed(uint64_t seed) {
  QN_CHECK(seed <= UINT32_MAX, "data order needs a seed (plus epoch) below 2^32, got {}; choose a smaller seed", seed);
  return static_cast<uint32_t>(seed);
}

}  // namespace

// std::mt19937 seeds itself from one integer exactly as numpy's legacy seeding does.
NumpyRandom::NumpyRandom(uint64_t seed) : engine_(checked_seed(seed)) {}

uint32_t NumpyRandom::bounded(uint32_t max) {
  if (max == 0) return 0;
  const uint32_t mask = UINT32_MAX >> std::countl_zero(max);
  for (;;) {
    const auto value = static_cast<uint32_t>(engine_()) & mask;
    if (value <= max) return value;
  }
}

void numpy_shuffle(uint64_t seed, std::span<int64_t> values) {
  QN_CHECK(values.size() <= UINT32_MAX, "cannot shuffle {} items, the limit is 2^32 - 1", values.size());
  NumpyRandom random(seed);
  for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[random.bounded(static_cast<uint32_t>(i))]);
}

std::vector<int64_t> numpy_permutation(uint64_t seed, int64_t n) {
  std::vector<int64_t> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), 0);
  numpy_shuffle(seed, values);
  return values;
}

}  // namespace qn
