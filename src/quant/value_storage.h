// How values that are not codes are stored in files: as they are, as halves, or as bytes with one scale per tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "core/enum_names.h"

namespace qn {

enum class ValueStorage : uint8_t { f32, f16, int8 };  ///< int8: one byte per value plus one float32 scale per tensor
template <>
struct EnumNames<ValueStorage> {
  static constexpr EnumName<ValueStorage> kAll[] = {
      {ValueStorage::f32, "fp32"}, {ValueStorage::f16, "fp16"}, {ValueStorage::int8, "int8"}};
};

/// Bytes that `count` values take.
uint64_t stored_bytes(int64_t count, ValueStorage storage);

/// Scale of int8 values: at most 12 significant bits, so that 127 * scale is exact and storing twice changes nothing.
float int8_scale(std::span<const float> values);
/// By the arithmetic of ops/uniform_grid.h, so that kernels that quantize with this zero point give what files hold.
int8_t to_int8(float value, float scale);
inline constexpr float kInt8ZeroPoint = 128.0f;

/// Why a file cannot hold these values: "70000 at element 5 is beyond 65504, the largest number of fp16"; empty when it
/// can.
std::string not_storable(std::span<const float> values, ValueStorage storage);
/// Values that are not all zero would all become zero.
bool underflow(std::span<const float> values, ValueStorage storage);

/// Rounds values to what a file will give back.
void round_to_storage(std::span<float> values, ValueStorage storage);

}  // namespace qn
