// Ids that every dictionary reserves (reference 5.1).
#pragma once

#include <cstdint>

namespace qn {

inline constexpr int32_t kBosId = 0;  ///< <s>
inline constexpr int32_t kPadId = 1;  ///< <pad>
inline constexpr int32_t kEosId = 2;  ///< </s>
inline constexpr int32_t kUnkId = 3;  ///< <unk>

}  // namespace qn
