// Values that are no numbers, or beyond all numbers.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace qn {

/// Index of the first element of a host tensor that is NaN or infinite; -1 when there is none. Reads every element
/// once, as fast as memory gives them. Integers are finite.
int64_t first_non_finite(const Tensor& host);

/// "nan at element 5 of 64"; empty when all of the host tensor is finite.
std::string describe_non_finite(const Tensor& host);

}  // namespace qn
