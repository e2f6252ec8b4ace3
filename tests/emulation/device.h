// An emulated CUDA device: the threads of a block are fibers of one host thread, blocks run one after the other.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

namespace qn::emulation {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kSharedLimit = size_t{227} << 10;  // bytes of shared memory a block of an H100 may ask for
constexpr size_t kExchangeBytes = 64;

struct Index {
  unsigned x, y, z;
};
extern Index thread_idx, block_idx;
extern dim3 block_dim, grid_dim;

/// Runs `body` once per thread of every block. Ends the program on a launch that a device would refuse and on blocks
/// that wait for ever.
void run_kernel(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

/// Within a kernel: waits for all threads of the block that have not ended, or for all 32 of the warp.
void sync_threads();
void sync_warp();
/// Dynamic shared memory of the block; garbage at first.
std::byte* shared_memory();
/// Shows `value` to the warp; returns the values of all 32 lanes, kExchangeBytes apart, until end_exchange().
const std::byte* exchange(const void* value, size_t bytes);
void end_exchange();
unsigned lane();

[[noreturn]] void refuse(const char* why);

}  // namespace qn::emulation
