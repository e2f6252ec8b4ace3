// How the weights of a packed model are held that is only evaluated.
#pragma once

#include <cstdint>

#include "core/enum_names.h"

namespace qn {

enum class HeldWeights : uint8_t {
  codes,   ///< as in the file, and multiplied so; decoded on backends without kernels for that (Kernels::from_codes)
  decoded  ///< as values: of product quantization in every pass, of others once
};
template <>
struct EnumNames<HeldWeights> {
  static constexpr EnumName<HeldWeights> kAll[] = {{HeldWeights::codes, "codes"}, {HeldWeights::decoded, "decoded"}};
};

}  // namespace qn
