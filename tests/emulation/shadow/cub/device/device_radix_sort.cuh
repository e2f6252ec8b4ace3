// In place of CUB's: the part of its interface that the backend uses.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "streams.h"

namespace cub {

struct DeviceRadixSort {
  template <typename K, typename V>
  static cudaError_t SortPairs(void* scratch, size_t& bytes, const K* keys, K* sorted, const V* values, V* permuted,
                               int n, int first_bit, int end_bit, cudaStream_t stream) {
    if (scratch == nullptr) {
      bytes = 1000;
      return cudaSuccess;
    }
    const uint64_t mask = (uint64_t{1} << end_bit) - (uint64_t{1} << first_bit);
    qn::emulation::enqueue(stream, [=, count = bytes] {
      std::vector<int> order(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [=](int a, int b) { return (keys[a] & mask) < (keys[b] & mask); });
      for (int i = 0; i < n; ++i) {
        sorted[i] = keys[order[static_cast<size_t>(i)]];
        permuted[i] = values[order[static_cast<size_t>(i)]];
      }
      std::memset(scratch, 0xee, count);
    });
    return cudaSuccess;
  }
};

}  // namespace cub
