// Made-up data with the shape of the real thing, the same on every machine and for the peers of bench/compare.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "ops/kernels.h"

namespace qn::bench {

/// `count` word ids in [3, vocabulary) with density 1 / id. For WikiText-2's 33280 entries 73 % lie below 2000, 15 % in
/// 2000..10000 and 12 % above, which is about what the real text has (75, 15, 10), so bands get realistic shares.
std::vector<int32_t> zipf_tokens(int64_t count, int64_t vocabulary, uint64_t seed);

/// Standard normal numbers.
std::vector<float> normal_values(int64_t count, uint64_t seed);

/// A tensor of standard normal numbers in the memory of `kernels`. Beyond a million elements they repeat.
OwnedTensor random_tensor(const Kernels& kernels, Shape shape, DType dtype, uint64_t seed = 1);

/// Waits until everything that the calling thread asked of `kernels` is done.
void wait_for(const Kernels& kernels);

/// The values as raw little-endian bytes, for the peers.
void write_raw(const std::filesystem::path& path, std::span<const std::byte> bytes);

}  // namespace qn::bench
