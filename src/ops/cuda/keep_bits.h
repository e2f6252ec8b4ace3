// Drawing keep bits on the device; see ops/keep_bits.h for the rule.
#pragma once

#include "core/random.h"
#include "ops/keep_bits.h"

namespace qn::cuda {

/// Rows of attention's keep bits: row (b * heads + h) * time + query has one group of 128 bits for 128 keys.
struct AttentionBits {
  int64_t first, count, time;
  bool causal;
};

/// Draws the rows into bits [count, groups of time keys, 2]. With a causal mask, groups without a visible key stay as
/// they are.
void draw_attention_bits(uint64_t* bits, const AttentionBits& rows, uint32_t threshold, const RandomKey& key);

}  // namespace qn::cuda
