// Drawing keep bits on the device; see ops/keep_bits.h for the rule.
#pragma once

#include "core/random.h"
#include "ops/keep_bits.h"

namespace qn::cuda {

/// Bits of groups first_group .. first_group + groups - 1 of 128 elements, two words each.
void draw_keep_bits(uint64_t* bits, int64_t first_group, int64_t groups, uint32_t threshold, const RandomKey& key);

}  // namespace qn::cuda
