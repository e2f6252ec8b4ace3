// Which random bits belong to which element: the rule that every backend follows, so that all draw the same masks.
//
// Elements are taken in groups of 128. Group g uses Philox blocks 16 g .. 16 g + 15 of the stream. Element
// 32 w + 2 lane + half of the group is that 16-bit half (0: low) of word w of block 16 g + lane; it is kept when the
// half is at least drop_threshold(p). Keep bits are stored in the order of elements, lowest bit first.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qn {

/// Dropout probability as a threshold on 16 bits.
inline uint32_t drop_threshold(double p) { return std::min<uint32_t>(static_cast<uint32_t>(p * 65536.0 + 0.5), 65535); }

}  // namespace qn
