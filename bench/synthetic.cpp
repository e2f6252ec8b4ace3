#include "bench/synthetic.h"

#include <algorithm>
#include <cmath>

#include "core/file_io.h"
#include "core/random.h"

namespace qn::bench {

std::vector<int32_t> zipf_tokens(int64_t count, int64_t vocabulary, uint64_t seed) {
  const RandomStream stream({.seed = seed, .purpose = Purpose::test});
  const double log_range = std::log(static_cast<double>(vocabulary - 2));
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto rank = static_cast<int64_t>(std::exp(log_range * stream.uniform(static_cast<uint64_t>(i))));
    ids[static_cast<size_t>(i)] = static_cast<int32_t>(std::min(vocabulary - 1, 2 + rank));
  }
  return ids;
}

std::vector<float> normal_values(int64_t count, uint64_t seed) {
  const RandomStream stream({.seed = seed, .purpose = Purpose::test, .id = 1});
  std::vector<float> values(static_cast<size_t>(count));
#pragma omp parallel for
  for (int64_t i = 0; i < count; ++i)
    values[static_cast<size_t>(i)] = static_cast<float>(stream.normal(static_cast<uint64_t>(i)));
  return values;
}

OwnedTensor random_tensor(const Kernels& kernels, Shape shape, DType dtype, uint64_t seed) {
  const auto elements = static_cast<size_t>(shape.elements());
  std::vector<float> values = normal_values(std::min(shape.elements(), int64_t{1} << 20), seed);
  const size_t period = values.size();
  values.resize(elements);
  for (size_t i = period; i < elements; ++i) values[i] = values[i - period];
  OwnedTensor floats(shape, DType::f32, *kernels.memory);
  kernels.upload(floats.view().data, values.data(), floats.view().bytes());
  if (dtype == DType::f32) return floats;
  OwnedTensor result(shape, dtype, *kernels.memory);
  kernels.copy(result.view(), floats.view());
  wait_for(kernels);  // before the floats go
  return result;
}

void wait_for(const Kernels& kernels) {
  std::byte nothing{};
  kernels.download(&nothing, &nothing, 0);  // waits all the same, and costs no allocation in a timed loop
}

void write_raw(const std::filesystem::path& path, std::span<const std::byte> bytes) { atomic_write(path, bytes); }

}  // namespace qn::bench
