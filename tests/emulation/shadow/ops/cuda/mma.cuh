// In place of src/ops/cuda/mma.cuh: what the PTX ISA says of these instructions, lane by lane.
#pragma once

#include <cfloat>
#include <vector>

#include "ops/cuda/types.cuh"

namespace qn::emulation {

/// Value of element `index` of the registers at `fragment`, lower halves first.
template <typename T>
float element(const void* fragment, unsigned index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(fragment) + index * sizeof value, sizeof value);
  return static_cast<float>(value);
}

/// A copy that has been started. Its data may arrive at any time until the thread waits for it.
struct PendingCopy {
  void* to;
  std::byte data[16];
  size_t bytes;
  void finish() const { std::memcpy(to, data, bytes); }
};
inline std::vector<PendingCopy> pending_copies[kMaxThreads];
inline uint32_t copies_started = 0;

inline unsigned thread_of_block() { return thread_idx.x + block_dim.x * (thread_idx.y + block_dim.y * thread_idx.z); }

inline void check_aligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) refuse(what);
}

inline void check_shared(const void* address, size_t bytes) {
  const auto* p = static_cast<const std::byte*>(address);
  if (p < shared_memory() || p + bytes > shared_memory() + kSharedLimit) refuse("this is no shared memory");
}

}  // namespace qn::emulation

namespace qn::cuda {

// PTX ISA: a_i is at row g for i in {0, 1, 4, 5}, else g + 8; column 2t + (i & 1), for i >= 4 + 8. b_i is at row
// 2t + (i & 1), for i >= 2 + 8; column g. d_i is at row g for i < 2, else g + 8; column 2t + (i & 1).
template <typename T>
void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  using namespace emulation;
  float mine[12];  // converted here: each is asked for by many lanes
  for (unsigned i = 0; i < 8; ++i) mine[i] = element<T>(a, i);
  const uint32_t b[2] = {b0, b1};
  for (unsigned i = 0; i < 4; ++i) mine[8 + i] = element<T>(b, i);
  static_assert(sizeof mine <= kExchangeBytes);
  const std::byte* all = exchange(mine, sizeof mine);
  const unsigned group = lane() / 4, t = lane() % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = group + (i < 2 ? 0 : 8), column = 2 * t + i % 2;
    double sum = static_cast<double>(d[i]);
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned lane_a = row % 8 * 4 + k % 8 / 2, index_a = k % 2 + (row < 8 ? 0 : 2) + (k < 8 ? 0 : 4);
      const unsigned lane_b = column * 4 + k % 8 / 2, index_b = k % 2 + (k < 8 ? 0 : 2);
      sum += static_cast<double>(element<float>(all + lane_a * kExchangeBytes, index_a)) *
             static_cast<double>(element<float>(all + lane_b * kExchangeBytes, 8 + index_b));
    }
    d[i] = static_cast<float>(sum);
  }
  end_exchange();
}

template <bool kTransposed>
void load_matrices(uint32_t (&registers)[4], const void* row) {
  using namespace emulation;
  check_aligned(row, 16, "ldmatrix from an address that is no multiple of 16 bytes");
  check_shared(row, 16);
  const std::byte* all = exchange(&row, sizeof row);
  const auto element_of = [all](unsigned matrix, unsigned r, unsigned column) {
    const std::byte* address;
    std::memcpy(&address, all + (8 * matrix + r) * kExchangeBytes, sizeof address);
    uint16_t value;
    std::memcpy(&value, address + column * sizeof value, sizeof value);
    return static_cast<uint32_t>(value);
  };
  const unsigned group = lane() / 4, t = lane() % 4;
  for (unsigned i = 0; i < 4; ++i)
    registers[i] = kTransposed ? element_of(i, 2 * t, group) | element_of(i, 2 * t + 1, group) << 16
                               : element_of(i, group, 2 * t) | element_of(i, group, 2 * t + 1) << 16;
  end_exchange();
}

// Some copies arrive at once and some only when the thread waits, by a fixed pattern without regularity: whoever reads
// too early or overwrites too early is found out.
template <int kBytes>
void copy_async(void* shared, const void* global, bool valid) {
  using namespace emulation;
  check_aligned(shared, kBytes, "an asynchronous copy to an address that is not aligned to its size");
  check_shared(shared, kBytes);
  PendingCopy copy{.to = shared, .data = {}, .bytes = kBytes};
  if (valid) {
    check_aligned(global, kBytes, "an asynchronous copy from an address that is not aligned to its size");
    std::memcpy(copy.data, global, kBytes);
  }
  if ((++copies_started * 2654435761U >> 16 & 1U) != 0)
    copy.finish();
  else
    pending_copies[thread_of_block()].push_back(copy);
}

inline void wait_for_copies() {
  auto& pending = emulation::pending_copies[emulation::thread_of_block()];
  for (const auto& copy : pending) copy.finish();
  pending.clear();
}

inline float fast_exp2(float x) {
  const float y = ::exp2f(x);
  return y < FLT_MIN ? 0.0f : y;
}

inline int computed_here(int value) { return value; }

}  // namespace qn::cuda
