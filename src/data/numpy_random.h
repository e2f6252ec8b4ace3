// The legacy random numbers of numpy (np.random.seed / permutation / shuffle), which fix fairseq's data order.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace qn {

/// What np.random.seed(seed) sets up. Throws qn::Error unless the seed fits in 32 bits, as numpy does.
class NumpyRandom {
 public:
  explicit NumpyRandom(uint64_t seed);
  /// Uniform in [0, max], by masking and rejection as numpy's legacy shuffle draws it.
  uint32_t bounded(uint32_t max);

 private:
  std::mt19937 engine_;
};

/// np.random.seed(seed); np.random.shuffle(values)
void numpy_shuffle(uint64_t seed, std::span<int64_t> values);

/// np.random.seed(seed); np.random.permutation(n)
std::vector<int64_t> numpy_permutation(uint64_t seed, int64_t n);

}  // namespace qn
