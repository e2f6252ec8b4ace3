// Values of files as floats and back.
#pragma once

#include <span>
#include <vector>

#include "core/safetensors.h"

namespace qn {

/// F32, F16 and BF16: what weights come in. F64 is not among them: rounding it would lose something.
bool is_weight_type(StoredType type);

/// The values of a weight type, exactly.
std::vector<float> floats_of(const StoredTensor& tensor);

/// Values as the bytes of a weight type, rounded to nearest even. `name` is for messages: throws qn::Error when a
/// finite value is beyond what F16 holds.
std::vector<std::byte> stored_bytes_of(std::span<const float> values, StoredType type, const std::string& name);

}  // namespace qn
