// Drawing keep bits on the device; see ops/keep_bits.h for the rule.
#pragma once

#include "ops/keep_bits.h"
#include "ops/kernels.h"

namespace qn::cuda {

/// Draws those of `count` heads, counted as b * heads + h, from `first` on: bits [count * longest query, groups of the
/// longest key, 2], one group of 128 bits for 128 keys. Groups without a visible key stay as they are.
void draw_attention_bits(uint64_t* bits, int64_t first, int64_t count, uint32_t threshold, const AttentionArgs& args);

}  // namespace qn::cuda
