// Sequences of unequal length in the rows of one matrix: no row is padding.
#pragma once

#include <cstdint>
#include <span>

#include "ops/tape.h"

namespace qn {

/// Sequence i is `lengths[i]` rows from row `begins[i]` on; sequences do not overlap. Host values that must stay until
/// the pass is over.
struct Sequences {
  std::span<const int32_t> begins, lengths;
  int64_t longest = 0;  ///< the largest of lengths
  int64_t count() const { return static_cast<int64_t>(begins.size()); }
};

struct Dropout;

/// Multi-head self-attention within each sequence: qkv [rows, 3 D] (q | k | v) -> [rows, D]. `causal`: a row sees
/// itself and those before it. Rows of no sequence, here and below, give zeros and get no gradient.
Var attention(Tape& tape, const Var& qkv, const Sequences& sequences, int64_t heads, bool causal, const Dropout& drop);

/// Sequence i of q [rows, D] sees all of sequence i of kv [rows', 2 D] (k | v) -> [rows, D]. A sequence may be without
/// queries, but not with queries and without keys.
Var cross_attention(Tape& tape, const Var& q, const Var& kv, const Sequences& queries, const Sequences& keys,
                    int64_t heads, const Dropout& drop);

}  // namespace qn
