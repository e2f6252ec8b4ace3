// Scratch memory of kernels that stays from call to call: a `static thread_local std::vector` of theirs.
#pragma once

#include <cstdint>
#include <vector>

namespace qn::cpu {

template <typename T>
T* at_least(std::vector<T>& scratch, int64_t n) {
  if (scratch.size() < static_cast<size_t>(n)) scratch.resize(static_cast<size_t>(n));
  return scratch.data();
}

/// The same from the beginning of a cache line on.
inline float* lines_at_least(std::vector<float>& scratch, int64_t n) {
  constexpr uintptr_t kLine = 64;
  const auto begin = reinterpret_cast<uintptr_t>(at_least(scratch, n + static_cast<int64_t>(kLine / sizeof(float))));
  return reinterpret_cast<float*>((begin + kLine - 1) / kLine * kLine);
}

template <typename T>
T* zeros(std::vector<T>& scratch, int64_t n) {
  scratch.assign(static_cast<size_t>(n), T{0});
  return scratch.data();
}

}  // namespace qn::cpu
