#include "quant/value_storage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/finite.h"
#include "core/half.h"
#include "ops/uniform_grid.h"

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
    case ValueStorage::log8:
      return n + 8;
  }
  QN_ASSERT(false, "unknown storage");
}

float int8_scale(std::span<const float> values) {
  float largest = 0.0f;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  if (largest == 0.0f) return 1.0f;
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(largest) / 127.0, &exponent);
  const auto scale = static_cast<float>(std::ldexp(std::ceil(mantissa * 4096.0 - 1e-6) / 4096.0, exponent));
  // Values so small have no 12 bits left for their scale; they are as good as zero.
  return scale < std::numeric_limits<float>::min() ? std::numeric_limits<float>::min() : scale;
}

int8_t to_int8(float value, float scale) {
  return static_cast<int8_t>(
      std::max(UniformGrid<float>{scale, kInt8ZeroPoint, last_code(8)}.index(value) - 128, -127));
}

/// What rounding costs: squared relative errors, of which that of a value as large as the largest counts most.
double LogGrid::cost(std::span<const float> values) const {
  double sum = 0.0;
  for (const float v : values) {
    if (v == 0.0f) continue;
    const double error = static_cast<double>(value(code(v))) / static_cast<double>(v) - 1.0;
    sum += error * error * std::abs(static_cast<double>(v));
  }
  return sum / static_cast<double>(largest);
}

LogGrid LogGrid::of(std::span<const float> values) {
  LogGrid grid;
  for (const float v : values) grid.largest = std::max(grid.largest, std::abs(v));
  if (grid.largest == 0.0f) return grid;
  constexpr double kRounding = 1e-10;  // what values that come from such a grid may cost
  constexpr float kCoarsest = 0.25f;
  double least = grid.cost(values);
  for (LogGrid other = grid; least > kRounding && other.step < kCoarsest;) {
    other.step *= 2.0f;
    const double cost = other.cost(values);
    if (cost >= least) continue;
    least = cost;
    grid = other;
  }
  return grid;
}

int8_t LogGrid::code(float value) const {
  if (value == 0.0f) return 0;
  const double octaves = std::log2(static_cast<double>(largest) / std::abs(static_cast<double>(value)));
  const double n = std::round(octaves / static_cast<double>(step));
  if (n > 126.0) return 0;
  const auto magnitude = static_cast<int8_t>(127 - static_cast<int>(n));
  return value < 0.0f ? static_cast<int8_t>(-magnitude) : magnitude;
}

float LogGrid::value(int8_t code) const {
  if (code == 0) return 0.0f;
  const double power = (std::abs(static_cast<int>(code)) - 127) * static_cast<double>(step);
  const auto magnitude = static_cast<float>(static_cast<double>(largest) * std::exp2(power));
  return code < 0 ? -magnitude : magnitude;
}

std::string not_storable(std::span<const float> values, ValueStorage storage) {
  if (values.empty()) return {};
  std::string text = describe_non_finite(view_of(values.data(), {std::ssize(values)}));
  if (!text.empty()) return text;
  const auto magnitude = [](float a, float b) { return std::abs(a) < std::abs(b); };
  const auto largest = std::max_element(values.begin(), values.end(), magnitude);
  if (storage == ValueStorage::f16 && std::isinf(half_to_float(float_to_half(*largest))))
    return fmt::format("{} at element {} is beyond {}, the largest number of fp16", *largest, largest - values.begin(),
                       kLargestHalf);
  if (storage == ValueStorage::int8 && std::isinf(127.0f * int8_scale(values)))
    return fmt::format("{} at element {} is beyond what bytes with a scale can hold", *largest,
                       largest - values.begin());
  return {};
}

bool underflow(std::span<const float> values, ValueStorage storage) {
  if (storage != ValueStorage::f16) return false;
  const auto is_zero = [](float v) { return v == 0.0f; };
  const auto becomes_zero = [](float v) { return half_to_float(float_to_half(v)) == 0.0f; };
  return std::all_of(values.begin(), values.end(), becomes_zero) && !std::all_of(values.begin(), values.end(), is_zero);
}

void round_to_storage(std::span<float> values, ValueStorage storage) {
  if (storage == ValueStorage::f16)
    for (float& v : values) v = half_to_float(float_to_half(v));
  if (storage == ValueStorage::int8) {
    const float scale = int8_scale(values);
    for (float& v : values) v = static_cast<float>(to_int8(v, scale)) * scale;
  }
  if (storage == ValueStorage::log8) {
    const LogGrid grid = LogGrid::of(values);
    for (float& v : values) v = grid.value(grid.code(v));
  }
}

}  // namespace qn
