// Sorting indices by key: what makes sums by key the same in every run.
#pragma once

#include <cstdint>

namespace qn::cuda {

/// keys ascending; order[i] is where keys[i] stood before. Equal keys keep their order; negative ones come last, as the
/// key `range`.
struct SortedKeys {
  const int32_t* keys;
  const int32_t* order;
  int64_t count;
};

/// Keys on the device, each below `range`. The result lives in the scratch memory of the calling thread's context: open
/// a ScratchScope around its use.
SortedKeys sort_keys(const int32_t* keys, int64_t count, int64_t range);
SortedKeys sort_keys(const uint16_t* keys, int64_t count, int64_t range);

}  // namespace qn::cuda
