#include "quant/value_storage.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/half.h"

namespace qn {

uint64_t stored_bytes(int64_t count, ValueStorage storage) {
  const auto n = static_cast<uint64_t>(count);
  switch (storage) {
    case ValueStorage::f32:
      return 4 * n;
    case ValueStorage::f16:
      return 2 * n;
    case ValueStorage::int8:
      return n + 4;
  }
  QN_ASSERT(false, "unknown storage");
}

float int8_scale(std::span<const float> values) {
  float largest = 0.0f;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  if (largest == 0.0f) return 1.0f;
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(largest) / 127.0, &exponent);
  return static_cast<float>(std::ldexp(std::ceil(mantissa * 4096.0 - 1e-6) / 4096.0, exponent));
}

int8_t to_int8(float value, float scale) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f));
}

void round_to_storage(std::span<float> values, ValueStorage storage) {
  if (storage == ValueStorage::f16)
    for (float& v : values) v = half_to_float(float_to_half(v));
  if (storage == ValueStorage::int8) {
    const float scale = int8_scale(values);
    for (float& v : values) v = static_cast<float>(to_int8(v, scale)) * scale;
  }
}

}  // namespace qn
