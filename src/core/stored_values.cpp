#include "core/stored_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/bfloat16.h"
#include "core/error.h"
#include "core/half.h"

namespace qn {
namespace {

/// Bytes of files need not be aligned.
template <typename T, typename Convert>
std::vector<float> converted(std::span<const std::byte> bytes, Convert convert) {
  std::vector<float> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = convert(value);
  }
  return values;
}

template <typename Convert>
std::vector<std::byte> bytes_by(std::span<const float> values, Convert convert) {
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), convert);
  const auto bytes = std::as_bytes(std::span<const uint16_t>(bits));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

bool is_weight_type(StoredType type) {
  return type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16;
}

std::vector<float> floats_of(const StoredTensor& tensor) {
  QN_ASSERT(is_weight_type(tensor.type), "{} is {}", tensor.name, name_of(tensor.type));
  if (tensor.type == StoredType::f32) return converted<float>(tensor.bytes, [](float v) { return v; });
  if (tensor.type == StoredType::f16) return converted<uint16_t>(tensor.bytes, half_to_float);
  return converted<bfloat16>(tensor.bytes, [](bfloat16 v) { return static_cast<float>(v); });
}

std::vector<std::byte> stored_bytes_of(std::span<const float> values, StoredType type, const std::string& name) {
  QN_ASSERT(is_weight_type(type), "{}", name_of(type));
  if (type == StoredType::f32) {
    const auto bytes = std::as_bytes(values);
    return {bytes.begin(), bytes.end()};
  }
  if (type == StoredType::bf16) return bytes_by(values, [](float v) { return bfloat16(v).bits; });
  return bytes_by(values, [&](float v) {
    const uint16_t half = float_to_half(v);
    QN_CHECK(std::isfinite(half_to_float(half)) || !std::isfinite(v),
             "tensor '{}' holds {}, which is beyond F16; BF16 and F32 hold it", name, v);
    return half;
  });
}

}  // namespace qn
