#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <limits>
#include <type_traits>

#include "core/error.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sort.h"

namespace qn::cuda {
namespace {

template <typename K>
__global__ void number_keys(const K* keys, uint32_t* widened, int32_t* order, int64_t n, uint32_t range) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) {
    widened[i] = static_cast<uint32_t>(keys[i]);
    if constexpr (std::is_signed_v<K>)
      if (keys[i] < 0) widened[i] = range;
    order[i] = static_cast<int32_t>(i);
  }
}

template <typename T>
T* scratch_array(int64_t n) {
  return static_cast<T*>(Context::current().scratch().allocate(static_cast<size_t>(n) * sizeof(T)));
}

template <typename K>
SortedKeys sort_any(const K* keys, int64_t count, int64_t range) {
  QN_ASSERT(count <= std::numeric_limits<int32_t>::max() && range < std::numeric_limits<int32_t>::max(),
            "{} keys below {}", count, range);
  auto *in = scratch_array<uint32_t>(count), *out = scratch_array<uint32_t>(count);
  auto *order_in = scratch_array<int32_t>(count), *order_out = scratch_array<int32_t>(count);
  launch(number_keys<K>, flat_grid(count), kThreads, keys, in, order_in, count, static_cast<uint32_t>(range));
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(range))));
  const auto n = static_cast<int>(count);
  const cudaStream_t stream = Context::current().stream();
  size_t bytes = 0;
  QN_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, in, out, order_in, order_out, n, 0, bits, stream));
  void* temporary = Context::current().scratch().allocate(bytes);
  QN_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(temporary, bytes, in, out, order_in, order_out, n, 0, bits, stream));
  return {reinterpret_cast<const int32_t*>(out), order_out, count};
}

}  // namespace

SortedKeys sort_keys(const int32_t* keys, int64_t count, int64_t range) { return sort_any(keys, count, range); }
SortedKeys sort_keys(const uint16_t* keys, int64_t count, int64_t range) { return sort_any(keys, count, range); }

}  // namespace qn::cuda
