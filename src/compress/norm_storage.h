#pragma once

#include <cstdint>

#include "core/enum_names.h"

namespace qn {

/// What a packed file holds of batch normalisations: factor, sum and running averages of every channel, or factor and
/// sum alone, which do what the averages did, too (RunningStatistics::fold()).
enum class NormStorage : uint8_t { keep, fold };
template <>
struct EnumNames<NormStorage> {
  static constexpr EnumName<NormStorage> kAll[] = {{NormStorage::keep, "keep"}, {NormStorage::fold, "fold"}};
};

}  // namespace qn
